"""Losses of the detector: presence, scores and boxes, and masks that keep to their own thing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.model import Detections, ImageFeatures, Prompt, Sam3

from .batches import Batch
from .dense_losses import AuxiliaryHeads, Losses, focal
from .fourier import box_codes
from .matching import Pairs, generalised_iou, match

EARLIER_LAYERS = 0.5
NEARBY_IOU, NEARBY_WEIGHT, MOST_NEARBY = 0.55, 0.3, 160


def detection_losses(found: list[Detections], batch: Batch) -> tuple[Losses, Pairs]:
    """Compare what every decoder layer found with the truth; also return which query answers for what."""
    logits = torch.stack([layer.logits for layer in found])  # (L, R, Q)
    boxes = torch.stack([layer.boxes_cxcywh for layer in found])
    presence = torch.stack([layer.presence_logits for layer in found])
    weight = torch.full((len(found),), EARLIER_LAYERS)
    weight[-1] = 1.0
    targets = batch.row_targets
    present = targets.any(1).float()
    true_boxes = batch.boxes[batch.row_image]
    pairs = match(logits.detach(), boxes.detach(), true_boxes, targets)
    count = max(1.0, len(pairs) / len(found))
    b, t = boxes[pairs.layer, pairs.row, pairs.query], true_boxes[pairs.row, pairs.thing]
    giou, iou = generalised_iou(cxcywh_to_xyxy(b), cxcywh_to_xyxy(t))
    layer_weight = weight[pairs.layer]
    wanted = torch.zeros_like(logits)
    wanted[pairs.layer, pairs.row, pairs.query] = 0.5 + 0.5 * iou.detach().clamp(min=0)
    score = (focal(logits, wanted, 0.6).sum((1, 2)) * weight).sum() / count
    here = F.binary_cross_entropy_with_logits(presence, present.expand_as(presence), reduction="none").mean(1)
    here = (here * weight).sum()
    distance = ((b - t).abs().sum(-1) * layer_weight).sum() / count
    overlap = ((1 - giou) * layer_weight).sum() / count
    last = pairs.layer == len(found) - 1
    parts = {
        "score": score, "presence": here, "box_l1": distance,
        "box_iou": iou[last].mean() if last.any() else torch.tensor(0.0),
        "presence_accuracy": ((presence[-1] > 0) == (present > 0)).float().mean(),
    }  # fmt: skip
    total = 4 * score + here + 5 * distance + 2 * overlap
    return Losses(total, {k: v.item() for k, v in parts.items()}), pairs


def mask_losses(
    model: Sam3, heads: AuxiliaryHeads, image: ImageFeatures, encoded: Tensor, prompt: Prompt,
    found: list[Detections], pairs: Pairs, batch: Batch,
) -> Losses:  # fmt: skip
    """Compare masks with the truth, for one answered prompt of each image.

    Args:
        model: The network.
        heads: The heads that only training needs.
        image: Features of the B images.
        encoded: (R, G * G, C).
        prompt: The R prompts.
        found: What each decoder layer found.
        pairs: Which query answers for what.
        batch: The truth.
    """
    rows = _first_answered_of_each_image(batch)
    if not len(rows):
        return Losses(encoded.sum() * 0, {})
    place = torch.full((len(batch.row_image),), -1)
    place[rows] = torch.arange(len(rows))
    pairs = pairs.only(place[pairs.row] >= 0)
    nearby = _nearby(found, batch, rows, pairs)
    weight = torch.where(pairs.layer == len(found) - 1, 1.0, EARLIER_LAYERS)
    weight = torch.cat([weight, torch.full((len(nearby),), NEARBY_WEIGHT)])
    both = Pairs(*(torch.cat([getattr(pairs, k), getattr(nearby, k)]) for k in Pairs.__dataclass_fields__))
    order = place[both.row].argsort(stable=True)
    both, weight = both.only(order), weight[order]
    at = place[both.row]
    laterals = image.select(batch.row_image[rows]).laterals
    part = prompt.select(rows)
    kernels = model.mask_head.doubling_kernels()
    pixels = model.mask_head.embed_pixels(laterals, kernels, image.grid, encoded[rows], part.tokens, part.valid)
    pixels = model.mask_head.pixel_project(pixels)  # (M, C, H, W)
    queries = torch.stack([layer.queries for layer in found])[both.layer, both.row, both.query]
    embedded = model.mask_head.query_mlp(queries)  # (K, C), in the order of the rows
    groups = embedded.split(torch.bincount(at, minlength=len(rows)).tolist())
    logits = torch.cat([torch.einsum("kc,chw->khw", g, p) for g, p in zip(groups, pixels, strict=True)])
    coverage = batch.masks[batch.row_image[rows]].float() / 255  # (M, N, H, W)
    wanted = (coverage * batch.row_targets[rows][:, :, None, None]).sum(1).clamp(max=1)
    true_boxes = batch.boxes[batch.row_image[both.row], both.thing]
    shape, parts = _shape_loss(logits, coverage[at, both.thing], wanted[at], true_boxes, weight)
    identity, identity_parts = _identity_loss(heads, pixels, embedded, true_boxes, weight, batch, rows, coverage)
    semantic = _semantic_loss(heads.semantic(pixels.movedim(1, -1))[..., 0], wanted)
    parts |= identity_parts | {"semantic": semantic.item()}
    return Losses(shape + identity + semantic, parts)


def _shape_loss(
    logits: Tensor, true: Tensor, wanted: Tensor, boxes: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, float]]:
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
    return loss, {k: v[best].mean().item() if best.any() else 0.0 for k, v in parts.items()}


def _identity_loss(
    heads: AuxiliaryHeads, pixels: Tensor, queries: Tensor, boxes: Tensor, weight: Tensor, batch: Batch,
    rows: Tensor, coverage: Tensor,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
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
    return 6 * pixel + 3 * query, {"pixel_codes": pixel.item(), "query_codes": query.item()}


def _semantic_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    cross_entropy = F.binary_cross_entropy_with_logits(logits, wanted)
    return 2 * cross_entropy + 0.5 * _dice(logits.sigmoid(), wanted).mean()


def _dice(p: Tensor, true: Tensor) -> Tensor:
    return 1 - (2 * (p * true).sum((1, 2)) + 1) / (p.sum((1, 2)) + true.sum((1, 2)) + 1)


def _around(boxes: Tensor, side: int) -> Tensor:
    """Where it is within 1.5 times each box (cxcywh): 0 or 1, (K, side, side)."""
    place = (torch.arange(side) + 0.5) / side
    reach = boxes[:, 2:] * 0.75 + 1.5 / side
    x = (place - boxes[:, :1]).abs() <= reach[:, :1]  # (K, side)
    y = (place - boxes[:, 1:2]).abs() <= reach[:, 1:]
    return (y[:, :, None] & x[:, None]).float()


@torch.no_grad()
def _first_answered_of_each_image(batch: Batch) -> Tensor:
    rows: dict[int, int] = {}
    for row in batch.row_targets.any(1).nonzero()[:, 0].tolist():
        rows.setdefault(int(batch.row_image[row]), row)
    return torch.tensor(list(rows.values()), dtype=torch.long)


@torch.no_grad()
def _nearby(found: list[Detections], batch: Batch, rows: Tensor, pairs: Pairs) -> Pairs:
    """Queries that were not matched but whose box is on a thing of the prompt all the same: they learn its mask too."""
    boxes = cxcywh_to_xyxy(torch.stack([layer.boxes_cxcywh for layer in found])[:, rows])  # (L, M, Q, 4)
    true = cxcywh_to_xyxy(batch.boxes[batch.row_image[rows]])
    _, iou = generalised_iou(boxes[:, :, :, None], true[None, :, None])
    iou = torch.where(batch.row_targets[rows][None, :, None], iou, -1.0)
    best, thing = iou.max(-1)  # (L, M, Q)
    used = torch.zeros(len(found), len(batch.row_image), boxes.shape[2], dtype=torch.bool)
    used[pairs.layer, pairs.row, pairs.query] = True
    layer, place, query = ((best > NEARBY_IOU) & ~used[:, rows]).nonzero(as_tuple=True)
    stride = max(1, -(-len(layer) // MOST_NEARBY))
    layer, place, query = layer[::stride], place[::stride], query[::stride]
    return Pairs(layer, rows[place], query, thing[layer, place, query])
