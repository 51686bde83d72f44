"""The embedded checkpoint on fixed drawn scenes: what transformers finds with it, and as good as we say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import s3seg
from s3seg import images, masks
from s3seg.sam3.load import load
from train_small_sam3.metrics import compare, summarise

SCENES = Path(__file__).parent / "data" / "scenes"
TRUTH = json.loads((SCENES / "scenes.json").read_text())
SPLITS = list(TRUTH["transformers_figures"])


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


@pytest.fixture(scope="module")
def found(seg) -> dict[str, list[list[s3seg.Segmentation]]]:
    """By split, for each scene the results of its prompts."""
    by_split: dict[str, list[list[s3seg.Segmentation]]] = {split: [] for split in SPLITS}
    for scene in TRUTH["scenes"]:
        prompts = [prompt["text"] for prompt in scene["prompts"]]
        by_split[scene["split"]].append(seg.segment(SCENES / scene["file"], prompts, threshold=TRUTH["threshold"]))
    return by_split


@pytest.mark.parametrize("split", SPLITS)
def test_its_figures_are_those_that_transformers_reaches_with_it(found, split):
    scenes = [scene for scene in TRUTH["scenes"] if scene["split"] == split]
    outcomes = [
        compare(result.masks, _decoded(prompt["masks"]))
        for scene, results in zip(scenes, found[split], strict=True)
        for prompt, result in zip(scene["prompts"], results, strict=True)
    ]
    figures, expected = summarise(outcomes), TRUTH["transformers_figures"][split]
    assert figures.prompts == expected["prompts"]
    for name in ("f1", "precision", "recall", "mean_iou", "left_empty"):
        assert getattr(figures, name) == pytest.approx(expected[name], abs=0.01), name


def test_the_model_card_tells_these_figures():
    card = (Path(__file__).parent.parent / "docs" / "model-card.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in card.splitlines() if line.startswith("| ")]
    names = ("prompts", "f1", "precision", "recall", "mean_iou", "left_empty")
    told = [dict(zip(names, map(float, row), strict=True)) for row in rows if row[0].isdecimal()]
    assert told == [{name: round(TRUTH["transformers_figures"][split][name], 2) for name in names} for split in SPLITS]


def test_it_finds_the_same_instances_as_transformers(seg, found):
    oracle = _transformers_model(seg.checkpoint.folder)
    tokenizer = seg._predictor.tokenizer
    compared = 0
    for split in SPLITS:
        scenes = [scene for scene in TRUTH["scenes"] if scene["split"] == split][:4]
        for scene, results in zip(scenes, found[split], strict=False):
            image = images.load(SCENES / scene["file"]).pixels
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
            for result in results:
                ids = torch.tensor([tokenizer(result.prompt)])
                with torch.inference_mode():
                    said = oracle(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
                scores = (said.pred_logits.sigmoid() * said.presence_logits.sigmoid())[0]
                order = [int(i) for i in scores.argsort(descending=True) if scores[i] > TRUTH["threshold"]]
                np.testing.assert_allclose(result.scores, scores[order].numpy(), atol=1e-4)
                assert result.presence == pytest.approx(float(said.presence_logits.sigmoid()), abs=1e-4)
                if not order:
                    continue
                np.testing.assert_allclose(result.boxes / 224, said.pred_boxes[0, order].clamp(0, 1), atol=1e-4)
                logits = F.interpolate(said.pred_masks[:, order], size=(224, 224), mode="bilinear")[0]
                assert (result.masks == (logits > 0).numpy()).mean() > 0.9999
                compared += len(order)
    assert compared > 30


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
