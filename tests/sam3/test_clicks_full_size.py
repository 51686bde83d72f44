"""Compare the click head at full size (1008 pixels) with transformers. Needs 10 GB and some minutes."""

from __future__ import annotations

import shutil

import pytest
import torch

from s3seg.sam3.click_prompts import BOX_END, BOX_START, NEGATIVE, POSITIVE, ClickPrompts
from s3seg.sam3.load import load
from tests.sam3.tracker_oracle import image_tracker, random_video_model


@pytest.mark.slow
def test_the_full_size_agrees_with_transformers(tmp_path, capsys):
    oracle = image_tracker(random_video_model({"model_type": "sam3_video"}, tmp_path))
    ours = load(tmp_path)
    shutil.rmtree(tmp_path)  # 3.6 GB
    pixels = torch.randn(1, 3, 1008, 1008, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    points = torch.tensor([[[300.0, 500.5], [90.0, 800.0]], [[640.0, 200.0], [1000.0, 3.0]]])
    labels = torch.tensor([[POSITIVE, NEGATIVE], [POSITIVE, POSITIVE]])
    box = torch.tensor([[[100.0, 120.0], [800.5, 660.0]]])

    image = oracle.get_image_embeddings(pixels)
    features = ours.clicks.features(ours.encode_image(pixels).patches)
    several = oracle(image_embeddings=image, input_points=points[None], input_labels=labels[None])
    boxed = oracle(image_embeddings=image, input_boxes=box.reshape(1, 1, 4))
    refined = oracle(
        image_embeddings=image,
        input_points=points[None, :1],
        input_labels=labels[None, :1],
        input_masks=boxed.pred_masks[0, :, :1],
    )

    def click(points, labels, mask=None):
        valid = torch.ones_like(labels, dtype=torch.bool)
        return ours.clicks(features, ClickPrompts(points / 1008, labels, valid, mask))

    lines = []
    for case, found, expected in (
        ("two objects of two points", click(points, labels), several),
        ("a box", click(box, torch.tensor([[BOX_START, BOX_END]])), boxed),
        ("two points and an earlier mask", click(points[:1], labels[:1], boxed.pred_masks[0, :, 0]), refined),
    ):
        for what, one, other in (
            ("mask logits", found.mask_logits[:, 1:], expected.pred_masks[0]),
            ("IoUs", found.ious[:, 1:], expected.iou_scores[0]),
            ("object logits", found.object_logits, expected.object_score_logits[0, :, 0]),
        ):
            lines.append(f"{case}, {what}: differs by {(one - other).abs().max():.1e} of up to {other.abs().max():.3g}")
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        assert found.mask_logits.std() > 1e-3, "constant masks prove nothing"
    with capsys.disabled():
        print("\n" + "\n".join(lines))
