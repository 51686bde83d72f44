"""Which query answers for which thing: the assignment with the least cost, for each prompt and decoder layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from s3seg.sam3.layers import cxcywh_to_xyxy


@dataclass(frozen=True)
class Pairs:
    """K pairs: query `query[k]` of `layer[k]` and `row[k]` answers for thing `thing[k]`."""

    layer: Tensor
    row: Tensor
    query: Tensor
    thing: Tensor

    def __len__(self) -> int:
        return len(self.layer)

    def only(self, keep: Tensor) -> Pairs:
        """Some of the pairs: `keep` is bool (K,), or indices."""
        return Pairs(self.layer[keep], self.row[keep], self.query[keep], self.thing[keep])


def generalised_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """GIoU and IoU of boxes xyxy, element by element: (..., 4), (..., 4) -> (...), (...)."""
    near, far = torch.max(a[..., :2], b[..., :2]), torch.min(a[..., 2:], b[..., 2:])
    both = (far - near).clamp(min=0).prod(-1)
    either = _area(a) + _area(b) - both
    hull = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    iou = both / (either + 1e-6)
    return iou - (hull - either) / (hull + 1e-6), iou


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, true_boxes: Tensor, targets: Tensor) -> Pairs:
    """Match queries to things.

    Args:
        logits: (L, R, Q), of L decoder layers and R rows.
        boxes: (L, R, Q, 4), cxcywh.
        true_boxes: (R, N, 4), cxcywh.
        targets: bool (R, N), which things each row asks for.
    """
    rows = targets.any(1).nonzero()[:, 0]
    b, t = boxes[:, rows, :, None], true_boxes[rows][None, :, None]
    giou, _ = generalised_iou(cxcywh_to_xyxy(b), cxcywh_to_xyxy(t))
    cost = 5 * (b - t).abs().sum(-1) - 2 * giou - 2 * logits[:, rows, :, None].sigmoid()  # (L, rows, Q, N)
    costs, wanted = cost.cpu().numpy(), targets[rows].cpu().numpy()
    found: list[list[np.ndarray]] = [[], [], [], []]
    for k, row in enumerate(rows.tolist()):
        things = np.nonzero(wanted[k])[0]
        for layer in range(len(logits)):
            query, thing = linear_sum_assignment(costs[layer, k][:, things])
            for part, value in zip(found, (layer, row, query, things[thing]), strict=True):
                part.append(np.broadcast_to(value, query.shape))
    if not len(rows):
        return Pairs(*(rows for _ in range(4)))
    return Pairs(*(torch.from_numpy(np.concatenate(part)).to(logits.device) for part in found))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
