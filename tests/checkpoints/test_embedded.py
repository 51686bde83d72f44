"""The embedded checkpoint on fixed drawn scenes: what transformers finds with it, and as good as we say."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import s3seg
from s3seg import images
from s3seg.results import masks
from s3seg.sam3.load import load
from train_small_sam3.metrics import compare, summarise
from train_small_sam3.regression_set import transformers_finds

SCENES = Path(__file__).parents[1] / "data" / "scenes"
TRUTH = json.loads((SCENES / "scenes.json").read_text())
SPLITS = list(TRUTH["figures"])
QUICK_SPLITS = ("twemoji (held out)", "examples")  # one that is asked for by words, and one by boxes


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


def _scenes(split):
    return [scene for scene in TRUTH["scenes"] if scene["split"] == split]


@pytest.fixture(scope="module")
def find(seg) -> Callable[[dict], list[s3seg.Segmentation]]:
    """Finds the results of the prompts of a scene, once."""
    found: dict[str, list[s3seg.Segmentation]] = {}

    def find(scene):
        if scene["file"] not in found:
            found[scene["file"]] = _ask(seg, seg.encode(SCENES / scene["file"]), scene["prompts"])
        return found[scene["file"]]

    return find


def _ask(seg, picture, prompts):
    """The results of prompts that are all words, or all boxes."""
    if any(prompt["boxes"] for prompt in prompts):
        return [_ask_with_boxes(seg, picture, prompt) for prompt in prompts]
    return seg.segment(picture, [prompt["text"] for prompt in prompts], threshold=TRUTH["threshold"])


def _ask_with_boxes(seg, picture, prompt):
    height, width = TRUTH["size"]
    boxes = [
        ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        for x, y, w, h in prompt["boxes"]
    ]
    return seg.segment(picture, boxes=boxes, threshold=TRUTH["threshold"])


@pytest.mark.parametrize(
    "split", [split if split in QUICK_SPLITS else pytest.param(split, marks=pytest.mark.slow) for split in SPLITS]
)
def test_its_figures_are_those_that_we_tell(find, split):
    outcomes = [
        compare(result.masks, _decoded(prompt["masks"]))
        for scene in _scenes(split)
        for prompt, result in zip(scene["prompts"], find(scene), strict=True)
    ]
    figures, expected = summarise(outcomes), TRUTH["figures"][split]
    assert figures.prompts == expected["prompts"]
    for name in ("f1", "precision", "recall", "mean_iou", "left_empty"):
        if expected[name] is None:
            assert getattr(figures, name) is None
        else:
            assert getattr(figures, name) == pytest.approx(expected[name], abs=0.01), name


def test_the_model_card_tells_these_figures():
    card = (Path(__file__).parents[2] / "docs" / "model-card.md").read_text(encoding="utf-8")
    rows = {}
    for line in card.partition("tests/checkpoints/test_embedded.py")[2].splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if name in SPLITS:
            rows[name] = [None if cell == "–" else float(cell) for cell in cells]
    names = ("f1", "precision", "recall", "mean_iou", "left_empty", "prompts")
    rounded = {
        split: [None if figures[name] is None else round(figures[name], 3) for name in names]
        for split, figures in TRUTH["figures"].items()
    }
    assert rows == rounded


@pytest.mark.parametrize("first", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_it_finds_the_same_instances_as_transformers(seg, find, first):
    oracle = _transformers_model(seg.checkpoint.folder)
    tokenizer = seg.predictor.tokenizer
    compared = 0
    for split in SPLITS:
        if split == "examples":
            continue  # transformers needs torchvision for boxes; tests/sam3 do without, on random weights
        for scene in _scenes(split)[:first]:
            image = images.load(SCENES / scene["file"]).pixels
            for prompt, result in zip(scene["prompts"], find(scene), strict=True):
                ids = tokenizer(prompt["text"])
                scores, expected = transformers_finds(oracle, image, ids, TRUTH["threshold"])
                np.testing.assert_allclose(result.scores, scores, atol=1e-4)
                if len(expected):
                    agreement = (result.masks[:, None] == expected).mean((2, 3))
                    ours, theirs = linear_sum_assignment(-agreement)  # instances with equal scores come in any order
                    assert agreement[ours, theirs].min() > 0.9999
                    np.testing.assert_allclose(result.scores[ours], scores[theirs], atol=1e-4)
                    compared += len(expected)
    assert compared > 7 * first


def test_it_loads_through_the_path_of_full_sam3(seg):
    assert seg.checkpoint.origin == "embedded"
    model = load(seg.checkpoint.folder)
    assert not model.config.cls_on_text_prompts
    assert sum(p.numel() for p in model.parameters()) == seg.parameters


def test_it_is_small_enough_for_the_wheel(seg):
    assert seg.checkpoint.size_bytes <= 20 * 2**20


def _decoded(rles: list[dict]) -> np.ndarray:
    decoded = [masks.decode(masks.from_coco(rle)) for rle in rles]
    return np.array(decoded, bool).reshape(-1, *TRUTH["size"])


def _transformers_model(folder: Path):
    modeling_sam3 = importlib.import_module("transformers.models.sam3.modeling_sam3")
    return modeling_sam3.Sam3Model.from_pretrained(folder, dtype=torch.float32).eval()
