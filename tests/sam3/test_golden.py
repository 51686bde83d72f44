"""Our loader and network reproduce recorded outputs of the reference implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from s3seg.sam3.load import load
from s3seg.sam3.model import BoxPrompts

CASES = ("text", "text_long", "box_pos", "box_mixed")
START, END = 298, 299


@pytest.fixture(scope="module")
def expected(golden: Path):
    return load_file(golden / "reference_tiny_outputs.safetensors")


@pytest.fixture(scope="module")
def model(golden: Path):
    return load(golden / "reference_tiny.safetensors")


def test_the_image_features_are_those_of_the_reference(model, expected):
    maps = model.vision(expected["pixel_values"])
    for level, found in enumerate(maps):
        torch.testing.assert_close(found, expected[f"image.fpn{level}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_the_reference_is_reproduced(model, expected, golden, name):
    case = {c["name"]: c for c in json.loads((golden / "reference_tiny.json").read_text())["cases"]}[name]
    ids = torch.tensor([[START, *map(int, case["token_ids"].split()), END]])
    image = model.encode_image(expected["pixel_values"])

    prompt = model.prompt(image, model.encode_text(ids), torch.ones_like(ids, dtype=torch.bool), _boxes(case))
    encoded = model.encode_prompted(image, prompt)
    found = model.detect(image, encoded, prompt)
    masks = model.masks(image, encoded, prompt, found.queries)

    for values, what in (
        (found.logits[0], "logits"),
        (found.presence_logits, "presence"),
        (found.boxes_cxcywh[0], "boxes_cxcywh"),
        (masks[0], "mask_logits"),
    ):
        torch.testing.assert_close(values, expected[f"{name}.{what}"], atol=1e-4, rtol=0)


def _boxes(case) -> BoxPrompts | None:
    if not case["boxes_cxcywh_label"]:
        return None
    boxes, labels = zip(*case["boxes_cxcywh_label"], strict=True)
    return BoxPrompts(torch.tensor([boxes]), torch.tensor([labels]), torch.ones(1, len(boxes), dtype=torch.bool))
