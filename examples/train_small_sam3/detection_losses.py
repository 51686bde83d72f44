"""Losses of the detector: presence, scores and boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.model import Detections

from .batch import Batch
from .dense_losses import Losses, focal
from .matching import Pairs, generalised_iou, match

EARLIER_LAYERS = 0.5


def detection_losses(found: list[Detections], batch: Batch, *, greedy: bool = False) -> tuple[Losses, Pairs]:
    """Compare what every decoder layer found with the truth; also return which query answers for what."""
    logits = torch.stack([layer.logits for layer in found])  # (L, R, Q)
    boxes = torch.stack([layer.boxes_cxcywh for layer in found])
    presence = torch.stack([layer.presence_logits for layer in found])
    weight = layer_weights(len(found), logits.device)
    targets = batch.row_targets
    present = targets.any(1).float()
    true_boxes = batch.boxes[batch.row_image]
    pairs = match(logits.detach(), boxes.detach(), true_boxes, targets, greedy=greedy)
    matched = pairs.found.float()  # (L, R, N)
    count = (matched.sum() / len(found)).clamp(min=1)
    b, t = torch.gather(boxes, 2, pairs.query[..., None].expand(-1, -1, -1, 4)), true_boxes[None]
    giou, iou = generalised_iou(cxcywh_to_xyxy(b), cxcywh_to_xyxy(t))
    wanted = torch.zeros_like(logits, dtype=torch.float32)
    wanted = wanted.scatter_add(2, pairs.query, (0.5 + 0.5 * iou.detach().clamp(min=0)) * matched)
    score = (focal(logits, wanted, 0.6).sum((1, 2)) * weight).sum() / count
    here = F.binary_cross_entropy_with_logits(presence, present.expand_as(presence), reduction="none").mean(1)
    here = (here * weight).sum()
    counted = matched * weight[:, None, None]
    distance = ((b - t).abs().sum(-1) * counted).sum() / count
    overlap = ((1 - giou) * counted).sum() / count
    parts = {
        "score": score, "presence": here, "box_l1": distance,
        "box_iou": (iou * matched)[-1].sum() / matched[-1].sum().clamp(min=1),
        "presence_accuracy": ((presence[-1] > 0) == (present > 0)).float().mean(),
    }  # fmt: skip
    total = 4 * score + here + 5 * distance + 2 * overlap
    return Losses(total, {k: v.detach() for k, v in parts.items()}), pairs


def layer_weights(layers: int, device: torch.device) -> Tensor:
    """Return how much each decoder layer counts: fp32 (layers,)."""
    return torch.where(torch.arange(layers, device=device) == layers - 1, 1.0, EARLIER_LAYERS)
