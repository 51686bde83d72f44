"""Compare the full size (840 million random weights, 1008 pixels) with transformers. Needs 12 GB and some minutes."""

from __future__ import annotations

import shutil
import time
from typing import Any

import pytest
import torch

from s3seg.sam3.load import load
from s3seg.sam3.model import BoxPrompts
from tests.sam3.forward import detect, oracle_outputs, with_cls_on_text_prompts
from tests.sam3.random_models import random_oracle

START, END = 49_406, 49_407


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    with torch.inference_mode():
        oracle = random_oracle({"model_type": "sam3"}, folder)
        ours = load(folder)
    shutil.rmtree(folder)  # 3.4 GB
    return oracle, ours


@pytest.mark.slow
def test_the_full_size_agrees_with_transformers(pair, capsys):
    oracle, ours = pair
    pixels = torch.randn(1, 3, 1008, 1008, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    ids = torch.tensor([[START, 2368, 320, 1929, END]])
    boxes, labels = torch.tensor([[[0.4, 0.5, 0.3, 0.2], [0.7, 0.3, 0.1, 0.1]]]), torch.tensor([[1, 0]])
    padded, none = torch.full((1, 1, 4), 0.5), torch.full((1, 1), -10)  # brings in the CLS token alone
    report = _Report()

    with report.timed("transformers, image"):
        expected_image = oracle.get_vision_features(pixel_values=pixels)
    with report.timed("s3seg, image"):
        maps = ours.vision(pixels)
        image = ours.features(maps)
    for level, (found, expected) in enumerate(zip(maps, expected_image.fpn_hidden_states[:3], strict=True)):
        report.compare("image", f"features, level {level}", found, expected)

    with report.timed("transformers, text"):
        expected_text = oracle.get_text_features(ids, attention_mask=torch.ones_like(ids))
    with report.timed("s3seg, text"):
        text = ours.encode_text(ids)
    report.compare("text", "features", text, expected_text.pooler_output)

    for case, model, ours_boxes, theirs in (
        ("text as in the reference", ours, None, (padded, none)),
        ("text as in transformers", with_cls_on_text_prompts(ours, False), None, (None, None)),
        (
            "text and boxes",
            ours,
            BoxPrompts(boxes, labels == 1, torch.ones(1, 2, dtype=torch.bool)),
            (boxes, labels),
        ),
    ):
        with report.timed(f"transformers, {case}"):
            expected = oracle(
                vision_embeds=expected_image,
                text_embeds=expected_text,
                attention_mask=torch.ones_like(ids),
                input_boxes=theirs[0],
                input_boxes_labels=theirs[1],
            )
        with report.timed(f"s3seg, {case}"):
            found = detect(model, image, text, torch.ones_like(ids, dtype=torch.bool), ours_boxes)
        for name, value in oracle_outputs(expected).items():
            report.compare(case, name, found[name], value)
        assert found["mask logits"].std() > 1e-3, "constant masks prove nothing"

    with capsys.disabled():
        print("\n" + "\n".join(report.lines))
    assert not report.failures, "\n".join(report.failures)


class _Report:
    """Collects times and differences to print; only the differences can fail the test."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failures: list[str] = []

    def timed(self, what: str) -> _Timer:
        return _Timer(self, what)

    def compare(self, case: str, what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        difference = (found - expected).abs().max().item()
        line = f"{case} {what}: differs by {difference:.1e} at most, of values up to {expected.abs().max():.3g}"
        self.lines.append(line)
        if not torch.allclose(found, expected, atol=1e-4, rtol=1e-4):
            self.failures.append(line)


class _Timer:
    def __init__(self, report: _Report, what: str) -> None:
        self.report, self.what = report, what

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        self.report.lines.append(f"{self.what}: {time.perf_counter() - self.start:.1f} s")
