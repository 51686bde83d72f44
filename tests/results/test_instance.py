"""An instance by itself: cut out, drawn, measured."""

from __future__ import annotations

import numpy as np
import pytest

from s3seg.errors import InvalidRequestError
from s3seg.results import draw
from tests.results.small_results import discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
RESULT = result_of(STACK, image=IMAGE)


def test_an_instance_crops_itself_as_the_result_does():
    for one, expected in zip(RESULT, RESULT.crops(), strict=True):
        assert np.array_equal(np.asarray(one.crop()), np.asarray(expected))


def test_padding_is_transparent_and_ends_at_the_edge_of_the_picture():
    crop = np.asarray(RESULT[0].crop(padding=5))
    y, x = (np.flatnonzero(STACK[0].any(axis=axis)) for axis in (1, 0))
    top, left = max(0, y[0] - 5), max(0, x[0] - 5)
    assert np.array_equal(crop[..., :3], IMAGE[top : y[-1] + 6, left : x[-1] + 6])
    assert np.array_equal(crop[..., 3] > 0, STACK[0][top : y[-1] + 6, left : x[-1] + 6])
    with pytest.raises(InvalidRequestError, match="padding"):
        RESULT[0].crop(padding=-1)


def test_an_instance_draws_itself_as_a_result_that_has_nothing_else():
    assert np.array_equal(np.asarray(RESULT[1].overlay(labels=False)), np.asarray(RESULT[[1]].overlay(labels=False)))


def test_an_instance_without_its_picture_asks_for_it():
    alone = result_of(STACK)[0]
    with pytest.raises(InvalidRequestError, match="pass image="):
        alone.crop()
    assert np.array_equal(np.asarray(alone.crop(IMAGE)), np.asarray(RESULT[0].crop()))
    assert alone == RESULT[0]


def test_the_largest_is_the_one_with_most_pixels():
    assert RESULT.largest() == RESULT[1]
    assert empty_result().largest() is None


def test_colours_lines_and_labels_are_as_asked():
    gray = np.full((120, 160, 3), 128, np.uint8)
    result = result_of(discs(120, 160, (60, 40, 30), (60, 120, 30)), image=gray, prompt="cat")
    plain = np.asarray(result.overlay(colors=["#ff0000", (0, 0, 255)], opacity=1.0, outlines=False, labels=False))
    assert plain[60, 40].tolist() == [255, 0, 0]
    assert plain[60, 120].tolist() == [0, 0, 255]
    lined = np.asarray(result.overlay(colors="lime", opacity=0, outlines="red", line_width=8, labels=False))
    red = (lined[..., 0] > 200) & (lined[..., 1] < 60)
    assert red[60, 66:74].sum() >= 6  # the right edge of the first disc is at x = 70
    assert lined[60, 40].tolist() == [128, 128, 128]
    thin = np.asarray(result.overlay(colors="lime", opacity=0, outlines="red", line_width=2, labels=False))
    assert ((thin[..., 0] > 200) & (thin[..., 1] < 60)).sum() < red.sum() / 2
    by_prompt = np.asarray(
        draw.overlay(gray, [result], colors={"cat": "white"}, opacity=1, outlines=False, labels=False)
    )
    assert by_prompt[60, 40].tolist() == by_prompt[60, 120].tolist() == [255, 255, 255]


def test_the_font_and_its_size_are_as_asked(tmp_path):
    import matplotlib

    font = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    gray = np.full((300, 400, 3), 128, np.uint8)
    result = result_of(discs(300, 400, (180, 200, 60)), image=gray, prompt="cat")

    def label_pixels(**style):
        drawn, bare = (np.asarray(result.overlay(labels=labels, **style)).astype(int) for labels in (True, False))
        return np.count_nonzero((drawn != bare).any(axis=-1))

    small, large = (label_pixels(font=font, font_size=size) for size in (10, 40))
    assert large > 6 * small > 0
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        result.overlay(font=tmp_path / "none.ttf")


@pytest.mark.parametrize(
    "style",
    [
        {"colors": "no colour"},
        {"colors": (1, 2)},
        {"colors": [(0, 0, 300)]},
        {"line_width": 0},
        {"line_width": 1e9},
        {"font_size": -1},
        {"font_size": float("nan")},
        {"opacity": 2},
        {"color_by": "score"},
        {"outlines": "bluish"},
    ],
)
def test_a_style_that_cannot_be_drawn_is_refused(style):
    with pytest.raises(InvalidRequestError):
        RESULT.overlay(**style)


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match="no argument 'colours'"):
        RESULT.overlay(colours="red")
