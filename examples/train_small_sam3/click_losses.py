"""Losses of the click head: things of each image are clicked, then corrected where their mask is most wrong."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.click_decoder import ClickPredictions
from s3seg.sam3.click_prompts import NEGATIVE, POSITIVE, ClickPrompts
from s3seg.sam3.clicks import ClickFeatures, ClickHead

from .batch import Batch
from .dense_losses import Losses

ROUNDS = 3
EARLIER_LOGIT = 10.0
"""Of a mask that is given along with clicks, inside; outside it is the negative. `ClickPredictor` does the same."""
WINDOWS = (3, 7, 15, 31)
"""Sides, in cells of the mask, of the windows with which the middle of a mistake is looked for."""


def click_predictions(head: ClickHead, tokens: Tensor, batch: Batch) -> list[ClickPredictions]:
    """Click `ROUNDS` times on K things of each of B images; from the second time on, the last mask is given along.

    Args:
        head: The click head.
        tokens: (B, G, G, width), from the ViT.
        batch: The truth, with the first click.

    Returns:
        What the head predicts after each click, for B * K things.
    """
    image, true = _for_each_thing(head.features(tokens), batch.click_thing.shape[1]), clicked_masks(batch) > 0.5
    points = batch.click_point.flatten(0, 1)[:, None]
    labels = torch.full_like(batch.click_thing.flatten(), POSITIVE)[:, None]
    logits, rounds = None, []
    for number in range(ROUNDS):
        if number:
            point, label = next_click(logits > 0, true, head.image_size)
            points, labels = torch.cat([points, point[:, None]], dim=1), torch.cat([labels, label[:, None]], dim=1)
        prompts = ClickPrompts(points, labels, None, logits)
        rounds.append(head(image, prompts))
        best, _ = head.decoder.best(rounds[-1])
        mask = (rounds[-1].mask_logits[:, 0] if number else best) > 0
        logits = torch.where(mask, EARLIER_LOGIT, -EARLIER_LOGIT)
    return rounds


def _for_each_thing(image: ClickFeatures, things: int) -> ClickFeatures:
    """Repeat the features of each image."""
    if things == 1:
        return image
    repeated = {name: getattr(image, name).repeat_interleave(things, 0) for name in ("tokens", "half", "quarter")}
    return replace(image, **repeated)


def click_losses(rounds: list[ClickPredictions], batch: Batch) -> Losses:
    """Compare masks and predicted IoUs with the truth; all in fp32.

    The loss of the first mask counts fully; that of the nearest alternative, and the mean of all alternatives, count
    half each: in these scenes a click means one thing, and after a single click the best-looking alternative is used.
    """
    true, counts = clicked_masks(batch), batch.valid.gather(1, batch.click_thing).flatten().float()
    total, parts = true.new_zeros(()), {}
    for number, found in enumerate(rounds, 1):
        logits = found.mask_logits.float()  # (B, masks, H, W)
        wrong = _wrongness(logits, true[:, None])
        iou = _iou(logits.detach() > 0, true[:, None] > 0.5)
        mask = wrong[:, 0] + 0.5 * (wrong[:, 1:].min(1).values + wrong[:, 1:].mean(1))
        guess = F.l1_loss(found.ious, iou, reduction="none").mean(1)
        there = F.softplus(-found.object_logits)
        loss = _mean(2 * mask + guess + 0.1 * there, counts)
        total = total + loss / len(rounds)
        shown = iou[:, 0] if number > 1 else iou[:, 1:].gather(1, found.ious[:, 1:].argmax(1, keepdim=True))[:, 0]
        parts[f"iou_after_{number}_clicks"] = _mean(shown, counts)
    return Losses(total, {k: v.detach() for k, v in parts.items()} | {"clicks": total.detach()})


def clicked_masks(batch: Batch) -> Tensor:
    """Return the coverage of the clicked things: fp32 (B * K, 4 G, 4 G), 0..1."""
    images = torch.arange(len(batch.masks), device=batch.masks.device)[:, None]
    return batch.masks[images, batch.click_thing].flatten(0, 1).float() / 255


@torch.no_grad()
def next_click(found: Tensor, true: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Click into the middle of the widest mistake; in a mask without any, into the middle of the thing.

    Args:
        found: bool (B, H, W).
        true: bool (B, H, W).
        image_size: Side of the network's input; a point is taken at the middle of its pixel.

    Returns:
        Points (B, 2), x and y in 0..1, and their labels, int64 (B,).
    """
    wrong = found != true
    score = _depth(wrong) + 1e-3 * _depth(true)
    place = score.flatten(1).argmax(1)
    height, width = found.shape[1:]
    x, y = (place % width + 0.5) / width, (place // width + 0.5) / height
    inside = true.flatten(1).gather(1, place[:, None])[:, 0]
    return torch.stack([x, y], dim=1) - 0.5 / image_size, torch.where(inside, POSITIVE, NEGATIVE)


def _depth(region: Tensor) -> Tensor:
    """How far inside a region each of its cells lies: the shares of windows around it that belong to it; 0 outside."""
    cells, depth = region.float()[:, None], torch.zeros(region.shape, device=region.device)
    for side in WINDOWS:
        rows = F.avg_pool2d(cells, (1, side), stride=1, padding=(0, side // 2))
        depth += F.avg_pool2d(rows, (side, 1), stride=1, padding=(side // 2, 0))[:, 0]
    return depth * region


def _wrongness(logits: Tensor, true: Tensor) -> Tensor:
    p, true = logits.sigmoid(), true.expand_as(logits)
    dice = 1 - (2 * (p * true).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + true.sum((-2, -1)) + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, true, reduction="none")
    return dice + 5 * (entropy * (p - true).abs() ** 2).mean((-2, -1))


def _iou(found: Tensor, true: Tensor) -> Tensor:
    both, either = (found & true).sum((-2, -1)), (found | true).sum((-2, -1))
    return both / either.clamp(min=1)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return (values * counts).sum() / counts.sum().clamp(min=1)
