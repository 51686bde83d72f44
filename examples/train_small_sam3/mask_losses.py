"""Losses of the masks, which must keep to their own thing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.model import Detections, ImageFeatures, Prompt, Sam3

from .batches import Batch
from .dense_losses import AuxiliaryHeads, Losses
from .detection_losses import EARLIER_LAYERS
from .fourier import box_codes
from .matching import Pairs, generalised_iou

NEARBY_IOU, NEARBY_WEIGHT, MOST_NEARBY = 0.55, 0.3, 160


@dataclass(frozen=True)
class MaskEmbeddings:
    """What the mask head makes of M rows, one answered prompt of each image, and of K queries in them."""

    rows: Tensor  # int64 (M,)
    pairs: Pairs  # the K queries and their things, in the order of the rows
    place: Tensor  # int64 (K,): in 0..M - 1, the row of each query
    weight: Tensor  # fp32 (K,)
    pixels: Tensor  # (M, C, H, W)
    queries: Tensor  # (K, C)


def mask_embeddings(
    model: Sam3, image: ImageFeatures, encoded: Tensor, prompt: Prompt, found: list[Detections], pairs: Pairs,
    batch: Batch,
) -> MaskEmbeddings:  # fmt: skip
    """Run the mask head for one answered prompt of each image.

    Args:
        model: The network.
        image: Features of the B images.
        encoded: (R, G * G, C).
        prompt: The R prompts.
        found: What each decoder layer found.
        pairs: Which query answers for what.
        batch: The truth.
    """
    rows = _first_answered_of_each_image(batch)
    place = torch.full_like(batch.row_image, -1)
    place[rows] = torch.arange(len(rows), device=rows.device)
    pairs = pairs.only(place[pairs.row] >= 0)
    nearby = _nearby(found, batch, rows, pairs)
    weight = torch.where(pairs.layer == len(found) - 1, 1.0, EARLIER_LAYERS)
    weight = torch.cat([weight, weight.new_full((len(nearby),), NEARBY_WEIGHT)])
    both = Pairs(*(torch.cat([getattr(pairs, k), getattr(nearby, k)]) for k in Pairs.__dataclass_fields__))
    order = place[both.row].argsort(stable=True)
    both, weight = both.only(order), weight[order]
    laterals = image.select(batch.row_image[rows]).laterals
    part = prompt.select(rows)
    kernels = model.mask_head.doubling_kernels()
    pixels = model.mask_head.embed_pixels(laterals, kernels, image.grid, encoded[rows], part.tokens, part.valid)
    pixels = model.mask_head.pixel_project(pixels)
    queries = torch.stack([layer.queries for layer in found])[both.layer, both.row, both.query]
    return MaskEmbeddings(rows, both, place[both.row], weight, pixels, model.mask_head.query_mlp(queries))


def mask_losses(heads: AuxiliaryHeads, made: MaskEmbeddings, batch: Batch) -> Losses:
    """Compare masks with the truth; all in fp32."""
    rows, at, weight = made.rows, made.place, made.weight
    pixels, queries = made.pixels.float(), made.queries.float()
    if not len(rows):
        return Losses(pixels.sum() * 0, {})
    groups = queries.split(torch.bincount(at, minlength=len(rows)).tolist())
    logits = torch.cat([torch.einsum("kc,chw->khw", g, p) for g, p in zip(groups, pixels, strict=True)])
    coverage = batch.masks[batch.row_image[rows]].float() / 255  # (M, N, H, W)
    wanted = (coverage * batch.row_targets[rows][:, :, None, None]).sum(1).clamp(max=1)
    true_boxes = batch.boxes[batch.row_image[made.pairs.row], made.pairs.thing]
    shape, parts = _shape_loss(logits, coverage[at, made.pairs.thing], wanted[at], true_boxes, weight)
    identity, identity_parts = _identity_loss(heads, pixels, queries, true_boxes, weight, batch, rows, coverage)
    semantic = _semantic_loss(heads.semantic(pixels.movedim(1, -1))[..., 0], wanted)
    parts |= identity_parts | {"semantic": semantic}
    return Losses(shape + identity + semantic, {k: v.detach() for k, v in parts.items()})


def _shape_loss(
    logits: Tensor, true: Tensor, wanted: Tensor, boxes: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Dice; cross-entropy near the thing; little that is far; nothing on others of its kind. All (K, H, W)."""
    p, above = logits.sigmoid(), F.softplus(logits)
    near = _around(boxes, logits.shape[-1])
    area = near.sum((1, 2)).clamp(min=4)
    siblings = (wanted - true).clamp(0, 1)
    dice = _dice(p, true)
    inside = ((above - logits * true) * near).sum((1, 2)) / area
    outside = (above * p * p * (1 - near)).sum((1, 2)) / area
    leak = (above * siblings).sum((1, 2)) / siblings.sum((1, 2)).clamp(min=4)
    loss = ((6 * dice + 3 * inside + 3 * outside + 1.5 * leak) * weight).sum() / weight.sum().clamp(min=1)
    best = weight == 1
    leaked = (p * siblings).sum((1, 2)) / p.sum((1, 2)).clamp(min=1)
    parts = {"dice": dice, "mask_inside": inside, "mask_outside": outside, "mask_leak": leaked}
    return loss, {k: (v * best).sum() / best.sum().clamp(min=1) for k, v in parts.items()}


def _identity_loss(
    heads: AuxiliaryHeads, pixels: Tensor, queries: Tensor, boxes: Tensor, weight: Tensor, batch: Batch,
    rows: Tensor, coverage: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Pixels and queries both tell the box of their thing: what keeps neighbours of one kind apart."""
    cover, thing = (coverage * batch.valid[batch.row_image[rows]][:, :, None, None]).max(1)  # (M, H, W)
    solid = (cover > 0.5).flatten(1)
    codes = box_codes(batch.boxes[batch.row_image[rows]])  # (M, N, CODES)
    truth = torch.gather(codes, 1, thing.flatten(1)[..., None].expand(-1, -1, codes.shape[-1]))
    said = heads.pixel_codes(pixels.flatten(2).transpose(1, 2))
    pixel = F.smooth_l1_loss(said, truth, reduction="none", beta=0.3).mean(-1)
    pixel = (pixel * solid).sum() / solid.sum().clamp(min=1)
    query = F.smooth_l1_loss(heads.query_codes(queries), box_codes(boxes), reduction="none", beta=0.3).mean(-1)
    query = (query * weight).sum() / weight.sum().clamp(min=1)
    return 6 * pixel + 3 * query, {"pixel_codes": pixel, "query_codes": query}


def _semantic_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted)
    return 2 * cross_entropy + 0.5 * _dice(logits.sigmoid(), wanted).mean()


def _dice(p: Tensor, true: Tensor) -> Tensor:
    return 1 - (2 * (p * true).sum((1, 2)) + 1) / (p.sum((1, 2)) + true.sum((1, 2)) + 1)


def _around(boxes: Tensor, side: int) -> Tensor:
    """Where it is within 1.5 times each box (cxcywh): 0 or 1, (K, side, side)."""
    place = (torch.arange(side, device=boxes.device) + 0.5) / side
    reach = boxes[:, 2:] * 0.75 + 1.5 / side
    x = (place - boxes[:, :1]).abs() <= reach[:, :1]  # (K, side)
    y = (place - boxes[:, 1:2]).abs() <= reach[:, 1:]
    return (y[:, :, None] & x[:, None]).float()


@torch.no_grad()
def _first_answered_of_each_image(batch: Batch) -> Tensor:
    answered = batch.targets_by_image.any(-1)  # (B, P)
    first = answered.int().argmax(1) + torch.arange(len(answered), device=answered.device) * answered.shape[1]
    return first[answered.any(1)]


@torch.no_grad()
def _nearby(found: list[Detections], batch: Batch, rows: Tensor, pairs: Pairs) -> Pairs:
    """Queries that were not matched but whose box is on a thing of the prompt all the same: they learn its mask too."""
    boxes = cxcywh_to_xyxy(torch.stack([layer.boxes_cxcywh for layer in found])[:, rows])  # (L, M, Q, 4)
    true = cxcywh_to_xyxy(batch.boxes[batch.row_image[rows]])
    _, iou = generalised_iou(boxes[:, :, :, None], true[None, :, None])
    iou = torch.where(batch.row_targets[rows][None, :, None], iou, -1.0)
    best, thing = iou.max(-1)  # (L, M, Q)
    used = torch.zeros(len(found), len(batch.row_image), boxes.shape[2], dtype=torch.bool, device=boxes.device)
    used[pairs.layer, pairs.row, pairs.query] = True
    layer, place, query = ((best > NEARBY_IOU) & ~used[:, rows]).nonzero(as_tuple=True)
    stride = max(1, -(-len(layer) // MOST_NEARBY))
    layer, place, query = layer[::stride], place[::stride], query[::stride]
    return Pairs(layer, rows[place], query, thing[layer, place, query])
