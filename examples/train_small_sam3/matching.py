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
    """Which of Q queries answers for each of N things, in L decoder layers and R rows."""

    query: Tensor
    """int64 (L, R, N), 0..Q - 1."""
    found: Tensor
    """bool (L, R, N): whether the row asks for the thing and a query was left for it. Elsewhere, ignore `query`."""


def generalised_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """GIoU and IoU of boxes xyxy, element by element: (..., 4), (..., 4) -> (...), (...)."""
    near, far = torch.max(a[..., :2], b[..., :2]), torch.min(a[..., 2:], b[..., 2:])
    both = _product((far - near).clamp(min=0))
    either = _area(a) + _area(b) - both
    hull = _product((torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).clamp(min=0))
    iou = both / (either + 1e-6)
    return iou - (hull - either) / (hull + 1e-6), iou


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, true_boxes: Tensor, targets: Tensor, *, greedy: bool) -> Pairs:
    """Match queries to things.

    Args:
        logits: (L, R, Q), of L decoder layers and R rows.
        boxes: (L, R, Q, 4), cxcywh.
        true_boxes: (R, N, 4), cxcywh.
        targets: bool (R, N), which things each row asks for.
        greedy: Take the cheapest pair, then the cheapest of what is left, and so on, for all rows together and on
            their device. Otherwise find the assignment with the least cost, by SciPy on the CPU.
    """
    b, t = boxes[:, :, :, None], true_boxes[None, :, None]
    giou, _ = generalised_iou(cxcywh_to_xyxy(b), cxcywh_to_xyxy(t))
    cost = 5 * (b - t).abs().sum(-1) - 2 * giou - 2 * logits[..., None].sigmoid()  # (L, R, Q, N)
    return _cheapest_first(cost, targets) if greedy else _least_cost(cost, targets)


def _cheapest_first(cost: Tensor, targets: Tensor) -> Pairs:
    queries, things = cost.shape[2:]
    cost = cost.masked_fill(~targets[None, :, None], torch.inf)
    query = torch.zeros(cost.shape[0], cost.shape[1], things, dtype=torch.int64, device=cost.device)
    found = torch.zeros_like(query, dtype=torch.bool)
    every_query, every_thing = torch.arange(queries, device=cost.device), torch.arange(things, device=cost.device)
    for _ in range(min(queries, things)):
        least, place = cost.flatten(2).min(-1, keepdim=True)  # (L, R, 1)
        left = least < torch.inf
        chosen_query, chosen_thing = place // things, place % things
        this = (every_thing == chosen_thing) & left  # (L, R, N)
        query, found = torch.where(this, chosen_query, query), found | this
        used = (every_query == chosen_query)[..., None] | (every_thing == chosen_thing)[..., None, :]
        cost = cost.masked_fill(used & left[..., None], torch.inf)
    return Pairs(query, found)


def _least_cost(cost: Tensor, targets: Tensor) -> Pairs:
    costs, wanted = cost.cpu().numpy(), targets.cpu().numpy()
    query = np.zeros((*costs.shape[:2], costs.shape[3]), np.int64)
    found = np.zeros(query.shape, bool)
    for row in np.flatnonzero(wanted.any(1)):
        things = np.flatnonzero(wanted[row])
        for layer in range(len(costs)):
            queries, matched = linear_sum_assignment(costs[layer, row][:, things])
            query[layer, row, things[matched]], found[layer, row, things[matched]] = queries, True
    return Pairs(torch.from_numpy(query).to(cost.device), torch.from_numpy(found).to(cost.device))


def _area(boxes: Tensor) -> Tensor:
    return _product((boxes[..., 2:] - boxes[..., :2]).clamp(min=0))


def _product(sides: Tensor) -> Tensor:
    """(..., 2) -> (...). The backward pass of `Tensor.prod` would look for zeros, and wait for a GPU."""
    return sides[..., 0] * sides[..., 1]
