"""Losses of the detector: presence, scores and boxes."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.model import Detections

from .batches import Batch
from .dense_losses import Losses, focal
from .matching import Pairs, generalised_iou, match

EARLIER_LAYERS = 0.5


def detection_losses(found: list[Detections], batch: Batch) -> tuple[Losses, Pairs]:
    """Compare what every decoder layer found with the truth; also return which query answers for what."""
    logits = torch.stack([layer.logits for layer in found])  # (L, R, Q)
    boxes = torch.stack([layer.boxes_cxcywh for layer in found])
    presence = torch.stack([layer.presence_logits for layer in found])
    weight = torch.full((len(found),), EARLIER_LAYERS, device=logits.device)
    weight[-1] = 1.0
    targets = batch.row_targets
    present = targets.any(1).float()
    true_boxes = batch.boxes[batch.row_image]
    pairs = match(logits.detach(), boxes.detach(), true_boxes, targets)
    count = max(1.0, len(pairs) / len(found))
    b, t = boxes[pairs.layer, pairs.row, pairs.query], true_boxes[pairs.row, pairs.thing]
    giou, iou = generalised_iou(cxcywh_to_xyxy(b), cxcywh_to_xyxy(t))
    layer_weight = weight[pairs.layer]
    wanted = torch.zeros_like(logits, dtype=torch.float32)
    wanted[pairs.layer, pairs.row, pairs.query] = 0.5 + 0.5 * iou.detach().clamp(min=0)
    score = (focal(logits, wanted, 0.6).sum((1, 2)) * weight).sum() / count
    here = F.binary_cross_entropy_with_logits(presence, present.expand_as(presence), reduction="none").mean(1)
    here = (here * weight).sum()
    distance = ((b - t).abs().sum(-1) * layer_weight).sum() / count
    overlap = ((1 - giou) * layer_weight).sum() / count
    last = pairs.layer == len(found) - 1
    parts = {
        "score": score, "presence": here, "box_l1": distance,
        "box_iou": (iou * last).sum() / last.sum().clamp(min=1),
        "presence_accuracy": ((presence[-1] > 0) == (present > 0)).float().mean(),
    }  # fmt: skip
    total = 4 * score + here + 5 * distance + 2 * overlap
    return Losses(total, {k: v.detach() for k, v in parts.items()}), pairs
