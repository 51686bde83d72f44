"""Compare the click head with transformers' Sam3TrackerModel, on random weights and several shapes."""

from __future__ import annotations

import pytest
import torch

from s3seg.sam3.click_prompts import BOX_END, BOX_START, NEGATIVE, POSITIVE, ClickPrompts
from s3seg.sam3.load import load
from tests.sam3.tracker_oracle import image_tracker, random_video_model, tiny_video_config

SHAPES = {
    "windows that do not divide the grid": {},
    "an odd grid, wider": {"image_size": 98, "pretrain_image_size": 42, "channels": 64, "heads": 8},
    "patches of 16, no replacement of unstable masks": {
        "image_size": 128,
        "patch_size": 16,
        "pretrain_image_size": 128,
        "tracker": {"dynamic_multimask_via_stability": False},
    },
    "two alternatives, full width in attention": {
        "window": 4,
        "tracker": {"num_multimask_outputs": 2, "attention_downsample_rate": 1, "num_attention_heads": 8},
    },
}


@pytest.fixture(scope="module", params=list(SHAPES), ids=lambda name: name.replace(" ", "-"))
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracker")
    with torch.inference_mode():
        video = random_video_model(tiny_video_config(**SHAPES[request.param]), folder, seed=len(request.param))
        return image_tracker(video), load(folder)


@pytest.fixture
def pixels(pair):
    size = pair[1].config.vision.image_size
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def images(pair, pixels):
    """What transformers and we compute of one image."""
    oracle, ours = pair
    return oracle.get_image_embeddings(pixels), ours.clicks.features(ours.encode_image(pixels).patches)


def test_the_features_of_the_image_agree(images):
    (quarter, half, coarse), ours = images
    _assert_close(ours.quarter, quarter)
    _assert_close(ours.half, half)
    _assert_close(ours.tokens.transpose(1, 2).unflatten(-1, ours.grid), coarse)


def test_positive_and_negative_points_agree(pair, images):
    points = torch.tensor([[[20.0, 31.5], [70.25, 60.0], [3.0, 90.0]]])
    labels = torch.tensor([[1, 0, 1]])
    expected = pair[0](image_embeddings=images[0], input_points=points[None], input_labels=labels[None])
    _assert_same(_click(pair, images, points, labels), expected)


def test_a_box_agrees_with_and_without_points(pair, images):
    box, point = torch.tensor([[[10.0, 12.0], [80.5, 66.0]]]), torch.tensor([[[40.0, 30.0]]])
    corners = torch.tensor([[BOX_START, BOX_END]])
    expected = pair[0](image_embeddings=images[0], input_boxes=box.reshape(1, 1, 4))
    _assert_same(_click(pair, images, box, corners), expected)

    expected = pair[0](
        image_embeddings=images[0],
        input_boxes=box.reshape(1, 1, 4),
        input_points=point[None],
        input_labels=torch.tensor([[[0]]]),
    )
    ours = _click(pair, images, torch.cat([point, box], dim=1), torch.tensor([[NEGATIVE, BOX_START, BOX_END]]))
    _assert_same(ours, expected)


def test_several_objects_at_once_agree(pair, images):
    points = torch.tensor([[[20.0, 31.0], [50.0, 50.0]], [[80.0, 10.0], [5.0, 5.0]], [[60.0, 70.0], [0.0, 97.0]]])
    labels = torch.tensor([[1, 0], [1, 1], [0, 1]])
    expected = pair[0](image_embeddings=images[0], input_points=points[None], input_labels=labels[None])
    _assert_same(_click(pair, images, points, labels), expected)


def test_a_single_mask_agrees(pair, images):
    """Random masks are unstable, so that they are replaced by an alternative where the configuration says so."""
    points, labels = torch.tensor([[[20.0, 31.0]], [[80.0, 10.0]]]), torch.tensor([[1], [1]])
    expected = pair[0](
        image_embeddings=images[0], input_points=points[None], input_labels=labels[None], multimask_output=False
    )
    logits, ious = pair[1].clicks.decoder.single(_click(pair, images, points, labels))
    _assert_close(logits, expected.pred_masks[0, :, 0])
    _assert_close(ious, expected.iou_scores[0, :, 0])


@pytest.mark.parametrize("shift", [-100.0, 100.0], ids=["empty", "whole"])
def test_a_stable_single_mask_is_kept_as_in_transformers(pair, images, shift):
    predictions = _click(pair, images, torch.tensor([[[20.0, 31.0]]]), torch.tensor([[1]]))
    predictions.mask_logits[:, 0] += shift
    decoder = pair[0].mask_decoder
    masks, ious = decoder._dynamic_multimask_via_stability(predictions.mask_logits[None], predictions.ious[None])
    logits, iou = pair[1].clicks.decoder.single(predictions)
    _assert_close(logits, masks[0, :, 0])
    _assert_close(iou, ious[0, :, 0])
    _assert_close(logits, predictions.mask_logits[:, 0])


def test_refining_earlier_masks_agrees(pair, images):
    points, labels = torch.tensor([[[20.0, 31.0]]]), torch.tensor([[1]])
    first = pair[0](image_embeddings=images[0], input_points=points[None], input_labels=labels[None])
    earlier = first.pred_masks[0, :, 1]  # (1, 4h, 4w)
    more, more_labels = torch.tensor([[[20.0, 31.0], [66.0, 40.0]]]), torch.tensor([[1, 0]])
    expected = pair[0](
        image_embeddings=images[0],
        input_points=more[None],
        input_labels=more_labels[None],
        input_masks=earlier[:, None],
    )
    _assert_same(_click(pair, images, more, more_labels, mask_logits=earlier), expected)


def test_objects_with_fewer_points_and_without_masks_are_as_if_alone(pair, images):
    side = 4 * images[1].grid[0]
    mask = torch.randn(1, side, side, generator=torch.Generator().manual_seed(3)) * 5
    points = torch.tensor([[[20.0, 31.0], [50.0, 50.0]], [[80.0, 10.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [1, 0]])
    together = _click(
        pair,
        images,
        points,
        labels,
        valid=torch.tensor([[True, True], [True, False]]),
        mask_logits=torch.cat([mask, torch.zeros_like(mask)]),
        has_mask=torch.tensor([True, False]),
    )
    first = _click(pair, images, points[:1], labels[:1], mask_logits=mask)
    second = _click(pair, images, points[1:, :1], labels[1:, :1])
    for row, alone in ((0, first), (1, second)):
        _assert_close(together.mask_logits[row], alone.mask_logits[0])
        _assert_close(together.ious[row], alone.ious[0])
        _assert_close(together.object_logits[row], alone.object_logits[0])


def _click(pair, images, points, labels, *, valid=None, **masks):
    """The predictions of our head for points in pixels of the network's input."""
    size = pair[1].config.vision.image_size
    valid = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
    return pair[1].clicks(images[1], ClickPrompts(points / size, labels, valid, **masks))


def _assert_same(ours, expected):
    _assert_close(ours.mask_logits[:, 1:], expected.pred_masks[0])
    _assert_close(ours.ious[:, 1:], expected.iou_scores[0])
    _assert_close(ours.object_logits, expected.object_score_logits[0, :, 0])
    assert ours.mask_logits.std() > 1e-3, "constant masks prove nothing"


def _assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


assert (NEGATIVE, POSITIVE) == (0, 1)  # as in transformers
