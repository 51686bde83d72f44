"""Concepts: what boxes show on some pictures, found on others, with the embedded checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

import s3seg
from s3seg.errors import InvalidRequestError, PromptError
from s3seg.results import masks
from s3seg.sam3.model import BoxPrompts
from tests.helpers.clickable import write_clickable_checkpoint

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
PARK, STREET, TABLE = (PICTURES / f"{name}.png" for name in ("park", "street", "kitchen_table"))


def boxes_of(picture: Path, label: str) -> list[tuple[float, ...]]:
    instances = json.loads(picture.with_suffix(".json").read_text())["instances"]
    return [masks.box(masks.from_coco(one["segmentation"])) for one in instances if one["label"] == label]


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


@pytest.fixture(scope="module")
def tree(seg) -> s3seg.Concept:
    return seg.concept(None, [(PARK, boxes_of(PARK, "tree")[:1], [])], name="my tree")


def test_an_example_on_one_picture_finds_the_same_on_another(seg, tree):
    found = seg.segment(STREET, tree)
    truth = [
        masks.from_coco(i["segmentation"])
        for i in json.loads(STREET.with_suffix(".json").read_text())["instances"]
        if i["label"] == "tree"
    ]
    assert found.prompt == "my tree"
    assert masks.iou(list(found.rles[:1]), truth).max() > 0.7
    assert found.hint == seg.metadata.concept_hint
    assert "in another style half as often" in found.hint


def test_the_tokens_of_a_concept_are_those_of_a_box_prompt_without_the_cls_token(seg, tree):
    park = seg.encode(PARK)
    model = seg.predictor.model
    x1, y1, x2, y2 = boxes_of(PARK, "tree")[0]
    height, width = park.encoded.size
    box = torch.tensor([[[(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    with torch.inference_mode():
        text = model.encode_text(torch.tensor([seg.predictor.tokenizer("visual")]))
        valid = torch.ones(text.shape[:2], dtype=torch.bool)
        prompt = model.prompt(park.encoded.features, text, valid, BoxPrompts(box, one, one))
    np.testing.assert_allclose(tree.tokens, prompt.tokens[0, text.shape[1] : -1].numpy(), atol=1e-5)


def test_a_prompt_of_a_concept_has_the_tokens_of_its_words_and_of_its_examples(seg, tree):
    street = seg.encode(STREET)
    model = seg.predictor.model
    with torch.inference_mode():
        text = model.encode_text(torch.tensor([seg.predictor.tokenizer("visual")]))
        tokens = torch.cat([text, torch.from_numpy(tree.tokens)[None]], dim=1)
        features = street.encoded.features
        prompt = model.prompt(features, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), None)
        expected = model.detect(features, model.encode_prompted(features, prompt), prompt).scores
    found = seg.segment(street, tree, threshold=0.1)
    np.testing.assert_allclose(found.scores, expected[expected > 0.1].sort(descending=True)[0], atol=1e-4)


def test_words_and_several_examples_add_up(seg, tree):
    both = seg.concept(
        "tree", [(PARK, boxes_of(PARK, "tree"), boxes_of(PARK, "sun")), (STREET, boxes_of(STREET, "tree"), [])]
    )
    assert (both.name, both.words, both.examples) == ("tree", "tree", 2)
    assert both.boxes == len(boxes_of(PARK, "tree") + boxes_of(PARK, "sun") + boxes_of(STREET, "tree"))
    assert both.tokens.shape == (both.boxes, tree.tokens.shape[1])
    assert seg.segment(STREET, both).prompt == "tree"
    assert seg.segment(STREET, both).scores[0] != seg.segment(STREET, tree).scores[0]


def test_a_concept_can_be_saved_and_loaded(seg, tree, tmp_path):
    loaded = s3seg.Concept.load(tree.save(tmp_path / "oak.safetensors"))
    assert loaded.name == "oak"  # a concept without words is called like its file
    assert np.array_equal(loaded.tokens, tree.tokens)
    assert (loaded.words, loaded.examples, loaded.boxes) == (None, 1, 1)
    assert seg.segment(STREET, loaded).rles == seg.segment(STREET, tree).rles
    words = seg.concept("tree", [(PARK, boxes_of(PARK, "tree"), [])])
    assert s3seg.Concept.load(words.save(tmp_path / "x.safetensors")).name == "tree"
    with pytest.raises(InvalidRequestError, match=r"saved as \.safetensors"):
        tree.save(tmp_path / "oak.pt")


def test_the_same_weights_in_another_file_can_use_it_and_others_refuse_it(tree, tmp_path):
    same = s3seg.Segmenter("embedded", device="cpu", dtype="bfloat16")
    assert same.segment(STREET, tree).prompt == "my tree"
    other = s3seg.Segmenter(write_clickable_checkpoint(tmp_path / "other"), device="cpu")
    with pytest.raises(InvalidRequestError, match=r"made by s3seg-embedded \S+ and cannot be used by clickable"):
        other.segment(STREET, tree)


def test_files_that_are_no_concepts_are_refused(tree, tmp_path):
    content = tree.save(tmp_path / "good.safetensors").read_bytes()
    described = {
        "s3seg": json.dumps(
            {
                "format": "s3seg.concept/1",
                "name": "x",
                "words": None,
                "examples": 1,
                "boxes": 1,
                "fingerprint": "x",
                "model": "x",
            }
        )
    }
    nan = np.full((2, 64), np.nan, np.float32)
    bad = {
        "cut": content[:-10],
        "empty": b"",
        "words": b"hello, this is no safetensors file at all",
        "other": save({"tokens": np.zeros((2, 64), np.float32)}),
        "shape": save({"tokens": np.zeros(64, np.float32)}, described),
        "many": save({"tokens": np.zeros((65, 64), np.float32)}, described),
        "type": save({"tokens": np.zeros((2, 64), np.float64)}, described),
        "nan": save({"tokens": nan}, described),
        "large": bytes(5 << 20),
    }
    assert load(content)["tokens"].shape == tree.tokens.shape
    for name, damaged in bad.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(damaged)
        with pytest.raises(InvalidRequestError, match=f"{name}.safetensors"):
            s3seg.Concept.load(file)


@pytest.mark.parametrize(
    ("words", "examples", "says"),
    [
        (None, [], "1 to 16 pictures"),
        (None, [(PARK, [(1, 2, 30, 40)], [])] * 17, "1 to 16 pictures"),
        (None, [(PARK, [(1, 2, 30, 40)] * 65, [])], "at most 64 boxes"),
        (None, [(PARK, [], [(1, 2, 30, 40)])], "needs a box around an example"),
        (None, [(PARK, [(5000, 2, 6000, 40)], [])], "no part of the box"),
    ],
)
def test_examples_that_make_no_sense_are_refused(seg, words, examples, says):
    with pytest.raises(InvalidRequestError, match=says):
        seg.concept(words, examples)


@pytest.mark.parametrize("words", ["", "  ", "a\0b", "tree " * 40])
def test_words_that_are_no_prompt_are_refused(seg, words):
    with pytest.raises(PromptError):
        seg.concept(words, [(PARK, [(1, 2, 30, 40)], [])])


def test_tokens_of_another_width_are_refused(seg, tree):
    from dataclasses import replace

    with pytest.raises(InvalidRequestError, match="tokens of 7 numbers"):
        seg.segment(STREET, replace(tree, tokens=np.zeros((2, 7), np.float32)))
