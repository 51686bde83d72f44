"""What the documentation asks of a picture is drawn in it, and the embedded checkpoint finds exactly that."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from hotcoco import mask as coco

import s3seg
from tests.docs.pairs import PICTURES, Pair, all_pairs, in_python, in_requests, in_shell

PAIRS = all_pairs()


def test_pairs_are_collected_from_pages_commands_and_docstrings():
    files = {pair.file for pair in PAIRS}
    assert {"README.md", "docs/tutorial/first-masks.md", "src/s3seg/__init__.py"} <= files
    assert Pair("street", "house", "docs/tutorial/first-masks.md") in PAIRS
    assert Pair("park", "tree", "src/s3seg/__init__.py") in PAIRS


def test_pairs_are_found_however_they_are_written():
    code = 'park = seg.encode("a/park.png")\na, b = seg.segment(park, ["tree", "sun"])\nc.segment("street.png", "cat")'
    assert set(in_python(code, {})) == {("park", "tree"), ("park", "sun"), ("street", "cat")}
    code = 'one = await c.upload(Path("park.png").read_bytes())\nawait c.submit(one.image_url, ["dog"])'
    assert set(in_python(code, {})) == {("park", "dog")}
    assert set(in_shell("$ s3seg segment --overlay x.png park.png tree -p sun > out.txt")) == {
        ("park", "tree"),
        ("park", "sun"),
    }
    assert len(set(in_shell("s3seg segment examples/pictures/*.png tree --jsonl"))) == 4
    assert set(in_shell("s3seg segment street.png tree --url https://<your edge>")) == {("street", "tree")}
    assert set(in_shell('python -c \'S("x").segment("pictures/park.png", "sun").overlay()\'')) == {("park", "sun")}
    assert set(in_requests('curl -F file=@park.png; curl --json \'{"text_prompt": "cat"}\'')) == {("park", "cat")}


@cache
def _drawn(picture: str) -> list[tuple[str, np.ndarray]]:
    listed = json.loads((PICTURES / f"{picture}.json").read_text(encoding="utf-8"))["instances"]
    return [(each["label"], coco.decode(each["segmentation"]).astype(bool)) for each in listed]


@cache
def _encoded(picture: str) -> tuple[s3seg.Segmenter, s3seg.Embedding]:
    model = s3seg.Segmenter("embedded")
    return model, model.encode(PICTURES / f"{picture}.png")


def _is_called(label: str, prompt: str) -> bool:
    """Whether a label is the prompt's thing, perhaps of a narrower kind: a striped blue star is a star."""
    words, wanted = label.lower().split(), prompt.lower().split()
    return words[-1] == wanted[-1] and set(wanted) <= set(words)


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize(("picture", "prompt"), sorted({(pair.picture, pair.prompt) for pair in PAIRS}))
def test_the_embedded_checkpoint_finds_what_is_drawn_and_nothing_else(picture, prompt):
    truth = [mask for label, mask in _drawn(picture) if _is_called(label, prompt)]
    model, encoded = _encoded(picture)
    found = [instance.mask for instance in model.segment(encoded, prompt)]
    files = ", ".join(pair.file for pair in PAIRS if (pair.picture, pair.prompt) == (picture, prompt))
    assert len(found) == len(truth), f"{picture}.png, {prompt!r}: shown in {files}"
    overlaps = np.array([[_iou(mask, true) for true in truth] for mask in found]).reshape(len(found), len(truth))
    assert (overlaps > 0.5).sum(0).tolist() == [1] * len(truth), f"{picture}.png, {prompt!r}: shown in {files}"


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.file}-{pair.picture}-{pair.prompt}")
def test_something_of_the_prompt_is_drawn_in_at_least_one_picture_of_the_file(pair):
    """A folder of pictures may hold some with nothing to find; a single picture may not."""
    pictures = {other.picture for other in PAIRS if (other.file, other.prompt) == (pair.file, pair.prompt)}
    assert any(_is_called(label, pair.prompt) for picture in pictures for label, _ in _drawn(picture))
