"""Losses of the masks, which must keep to their own thing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.model import Detections, ImageFeatures, Prompt, Sam3

from .batch import Batch
from .dense_losses import AuxiliaryHeads, Losses
from .detection_losses import layer_weights
from .fourier import box_codes
from .matching import Pairs, generalised_iou

NEARBY_IOU, NEARBY_WEIGHT = 0.55, 0.3
MOST_MASKS = 16
"""Of one image, of all decoder layers together: those that count most."""


@dataclass(frozen=True)
class MaskEmbeddings:
    """What the mask head makes of one answered prompt of each of B images, and of K queries in each.

    The B images are the first of those that are asked: as many as have finer maps.
    """

    rows: Tensor  # int64 (B,): the prompts
    answered: Tensor  # fp32 (B,): 0 for an image without an answered prompt
    thing: Tensor  # int64 (B, K): what the query answers for
    weight: Tensor  # fp32 (B, K): how much it counts; 0 for padding
    pixels: Tensor  # (B, C, H, W)
    queries: Tensor  # (B, K, C)


def mask_embeddings(
    model: Sam3, image: ImageFeatures, encoded: Tensor, prompt: Prompt, found: list[Detections], pairs: Pairs,
    batch: Batch, *, fixed_shapes: bool = False,
) -> MaskEmbeddings:  # fmt: skip
    """Run the mask head for one answered prompt of each image.

    Args:
        model: The network.
        image: Features of the asked images, with finer maps of the first B.
        encoded: (R, G * G, C).
        prompt: The R prompts.
        found: What each decoder layer found.
        pairs: Which query answers for what.
        batch: The truth.
        fixed_shapes: Keep K at its most; otherwise it is the largest number of queries that count in an image.
    """
    rows, answered = _first_answered_of_each_image(batch)
    compared = len(image.laterals[0])
    rows, answered = rows[:compared], answered[:compared]
    query, weight = _queries_of_rows(found, pairs, rows, batch)  # (B, L, 2 N)
    things = query.shape[-1]
    place = torch.arange(query[0].numel(), device=query.device)
    most = min(MOST_MASKS, len(place))
    if not fixed_shapes:
        most = min(most, max(1, int((weight > 0).flatten(1).sum(1).max())))
    weight, chosen = weight.flatten(1).topk(most)  # (B, K)
    layer, thing = chosen // things, chosen % things % batch.boxes.shape[1]
    query = torch.gather(query.flatten(1), 1, chosen)
    queries = torch.stack([layer.queries for layer in found])[layer, rows[:, None], query]
    part = prompt.select(rows)
    kernels = model.mask_head.doubling_kernels()
    pixels = model.mask_head.embed_pixels(image.laterals, kernels, image.grid, encoded[rows], part.tokens, part.valid)
    pixels = model.mask_head.pixel_project(pixels)
    return MaskEmbeddings(rows, answered, thing, weight, pixels, model.mask_head.query_mlp(queries))


def mask_losses(heads: AuxiliaryHeads, made: MaskEmbeddings, batch: Batch) -> Losses:
    """Compare masks with the truth; all in fp32."""
    pixels, queries = made.pixels.float(), made.queries.float()
    logits = (queries @ pixels.flatten(2)).unflatten(-1, pixels.shape[-2:])  # (B, K, H, W)
    coverage = batch.masks.float() / 255  # (B, N, H, W)
    wanted = (coverage * batch.row_targets[made.rows][:, :, None, None]).sum(1).clamp(max=1)  # (B, H, W)
    true = torch.gather(coverage, 1, made.thing[..., None, None].expand(-1, -1, *coverage.shape[2:]))
    true_boxes = torch.gather(batch.boxes, 1, made.thing[..., None].expand(-1, -1, 4))
    shape, parts = _shape_loss(logits, true, wanted[:, None], true_boxes, made.weight)
    identity, identity_parts = _identity_loss(heads, pixels, queries, true_boxes, made, batch, coverage)
    semantic = _semantic_loss(heads.semantic(pixels.movedim(1, -1))[..., 0], wanted, made.answered)
    parts |= identity_parts | {"semantic": semantic}
    return Losses(shape + identity + semantic, {k: v.detach() for k, v in parts.items()})


def _shape_loss(
    logits: Tensor, true: Tensor, wanted: Tensor, boxes: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Dice; cross-entropy near the thing; little that is far; nothing on others of its kind. All (B, K, H, W)."""
    p, above = logits.sigmoid(), F.softplus(logits)
    near = _around(boxes, logits.shape[-1])
    area = _sum(near).clamp(min=4)
    siblings = (wanted - true).clamp(0, 1)
    dice = _dice(p, true)
    inside = _sum((above - logits * true) * near) / area
    outside = _sum(above * p * p * (1 - near)) / area
    leak = _sum(above * siblings) / _sum(siblings).clamp(min=4)
    loss = ((6 * dice + 3 * inside + 3 * outside + 1.5 * leak) * weight).sum() / weight.sum().clamp(min=1)
    best = weight == 1
    leaked = _sum(p * siblings) / _sum(p).clamp(min=1)
    parts = {"dice": dice, "mask_inside": inside, "mask_outside": outside, "mask_leak": leaked}
    return loss, {k: (v * best).sum() / best.sum().clamp(min=1) for k, v in parts.items()}


def _identity_loss(
    heads: AuxiliaryHeads, pixels: Tensor, queries: Tensor, boxes: Tensor, made: MaskEmbeddings, batch: Batch,
    coverage: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Pixels and queries both tell the box of their thing: what keeps neighbours of one kind apart."""
    weight = made.weight
    cover, thing = (coverage * batch.valid[:, :, None, None]).max(1)  # (B, H, W)
    solid = (cover > 0.5).flatten(1) * made.answered[:, None]
    codes = box_codes(batch.boxes)  # (B, N, CODES)
    truth = torch.gather(codes, 1, thing.flatten(1)[..., None].expand(-1, -1, codes.shape[-1]))
    said = heads.pixel_codes(pixels.flatten(2).transpose(1, 2))
    pixel = F.smooth_l1_loss(said, truth, reduction="none", beta=0.3).mean(-1)
    pixel = (pixel * solid).sum() / solid.sum().clamp(min=1)
    query = F.smooth_l1_loss(heads.query_codes(queries), box_codes(boxes), reduction="none", beta=0.3).mean(-1)
    query = (query * weight).sum() / weight.sum().clamp(min=1)
    return 6 * pixel + 3 * query, {"pixel_codes": pixel, "query_codes": query}


def _semantic_loss(logits: Tensor, wanted: Tensor, answered: Tensor) -> Tensor:
    """All things of the prompt together: (B, H, W)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2))
    each = 2 * cross_entropy + 0.5 * _dice(logits.sigmoid(), wanted)
    return (each * answered).sum() / answered.sum().clamp(min=1)


def _sum(maps: Tensor) -> Tensor:
    return maps.sum((-2, -1))


def _dice(p: Tensor, true: Tensor) -> Tensor:
    return 1 - (2 * _sum(p * true) + 1) / (_sum(p) + _sum(true) + 1)


def _around(boxes: Tensor, side: int) -> Tensor:
    """Where it is within 1.5 times each box, cxcywh (..., 4): 0 or 1, (..., side, side)."""
    place = (torch.arange(side, device=boxes.device) + 0.5) / side
    reach = boxes[..., 2:] * 0.75 + 1.5 / side
    x = (place - boxes[..., :1]).abs() <= reach[..., :1]  # (..., side)
    y = (place - boxes[..., 1:2]).abs() <= reach[..., 1:]
    return (y[..., :, None] & x[..., None, :]).float()


@torch.no_grad()
def _first_answered_of_each_image(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return a row of each image, int64 (B,), and whether something answers it, fp32 (B,)."""
    answered = batch.targets_by_image.any(-1)  # (B, P)
    first = answered.int().argmax(1) + torch.arange(len(answered), device=answered.device) * answered.shape[1]
    return first, answered.any(1).float()


@torch.no_grad()
def _queries_of_rows(found: list[Detections], pairs: Pairs, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the queries that learn the masks of some rows, and how much each counts: (B, L, 2 N) both.

    The first N are those that answer for the N things. The others were not matched, but their box is on a thing of
    the prompt all the same: of each thing the nearest one, and it learns its mask too.
    """
    layers, targets = len(found), batch.row_targets[rows]
    matched, query = pairs.found[:, rows], pairs.query[:, rows]  # (L, B, N)
    weight = matched * layer_weights(layers, rows.device)[:, None, None]
    boxes = cxcywh_to_xyxy(torch.stack([layer.boxes_cxcywh for layer in found])[:, rows])  # (L, B, Q, 4)
    true = cxcywh_to_xyxy(batch.boxes[batch.row_image[rows]])
    _, iou = generalised_iou(boxes[:, :, :, None], true[None, :, None])  # (L, B, Q, N)
    used = torch.zeros(boxes.shape[:3], device=rows.device).scatter_add(2, query, matched.float()) > 0
    nearest, place = iou.masked_fill(used[..., None] | ~targets[None, :, None], -1).max(2)  # (L, B, N)
    nearby = (nearest > NEARBY_IOU) * NEARBY_WEIGHT
    both, weights = torch.cat([query, place], dim=-1), torch.cat([weight, nearby], dim=-1)
    return both.transpose(0, 1), weights.transpose(0, 1)
