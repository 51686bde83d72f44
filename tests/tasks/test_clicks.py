from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3seg.tasks.clicks import Clicks, click_texts

numbers = st.floats(0, 4000, width=32)
points = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=64)


@given(points, st.randoms(use_true_random=False))
def test_clicks_survive_json(places, random):
    one = Clicks(places, [random.randint(0, 1) for _ in places], box=(1, 2, 3.5, 4) if random.random() < 0.5 else None)
    assert Clicks.from_dict(one.to_dict()) == one


@given(st.lists(points, min_size=1, max_size=16))
def test_descriptions_are_short_and_different(objects):
    texts = click_texts([Clicks(places) for places in objects])
    assert len(set(texts)) == len(texts) == len(objects)
    assert all(1 <= len(text) <= 130 for text in texts)


def test_a_description_names_box_and_points():
    assert Clicks([(120, 80.5), (3, 4)], [1, 0], box=(1, 2, 30, 40)).text() == "box 1,2,30,40; point 120,80.5; not 3,4"
