"""Losses on single patches and on whole things: what they show, what they are called, how far they reach."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Batch
from .fourier import CODES
from .settings import Settings
from .shapes import COLOUR_NAMES, PATTERNS, SHAPES

LTRB_SCALE = 5.0


class AuxiliaryHeads(nn.Module):
    """Heads that only training needs; they are not part of the checkpoint."""

    def __init__(self, settings: Settings, concepts: int) -> None:
        super().__init__()
        width, channels = settings.vit_width, settings.channels
        self.attribute_sizes = [concepts + 2, len(SHAPES), len(COLOUR_NAMES), len(PATTERNS)]  # + shape, background
        self.attributes = nn.Linear(width, sum(self.attribute_sizes))
        self.patch = nn.Linear(channels, channels)
        self.text = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(-4.0))
        self.name_scale = nn.Parameter(torch.tensor(2.0))
        self.neck_concepts = nn.Linear(channels, concepts + 2)
        self.edges = nn.Linear(width, 4)
        self.pixel_codes = nn.Linear(channels, CODES)
        self.query_codes = nn.Linear(channels, CODES)
        self.semantic = nn.Linear(channels, 1)


@dataclass(frozen=True)
class Losses:
    """A sum to minimise, and its parts for the log."""

    total: Tensor
    parts: dict[str, Tensor]
    """Detached scalars; they stay on the device, so that logging does not stop it every step."""


def dense_losses(heads: AuxiliaryHeads, tokens: Tensor, coarsest: Tensor, text: Tensor, batch: Batch) -> Losses:
    """Compare patches with what they show.

    Args:
        heads: The heads that only training needs.
        tokens: (B, G, G, width), from the ViT.
        coarsest: (B, C, G, G), the neck's coarsest map.
        text: (T, L, C), encoded texts.
        batch: The truth.
    """
    labels = batch.patch_labels.flatten(1)  # (B, P)
    clear = (labels >= 0).float()
    count = batch.texts
    wanted = _by_patch(batch.matches[..., :count], labels).float()  # (B, P, texts)
    judged = batch.dense & ~_by_patch(batch.unclear[..., :count], labels)
    words = heads.text(_pool(text, batch.token_valid))
    patches = coarsest.flatten(2).transpose(1, 2)
    projected = heads.patch(patches)
    logits = projected @ words[:count].T * heads.scale.abs() * 2 / projected.shape[-1] ** 0.5 + heads.bias
    weight = clear[..., None] * judged
    said = (focal(logits, wanted, 0.5) * weight).sum() / (wanted * weight).sum().clamp(min=1)
    logits = logits.masked_fill(~judged, -1e4)
    choice = -(F.log_softmax(logits, -1) * wanted).sum(-1) / wanted.sum(-1).clamp(min=1)
    named = (wanted.sum(-1) > 0).float() * clear
    choice = (choice * named).sum() / named.sum().clamp(min=1)
    truth = torch.gather(batch.attributes, 1, labels.clamp(min=0)[..., None].expand(-1, -1, 4))
    truth = torch.where(labels[..., None] >= 0, truth, -1).flatten(0, 1)  # (B * P, 4)
    concept, looks, accuracy = _attribute_losses(heads, tokens, truth)
    neck_concept = _concept_loss(heads.neck_concepts(patches.flatten(0, 1)), truth[:, 0])
    naming, right = _naming_loss(heads, patches, words[count : count + batch.names], batch)
    edges = _edge_loss(heads, tokens, batch, labels)
    total = 2 * said + 1.5 * choice + 2.5 * concept + neck_concept + 2.5 * naming + 0.5 * looks + 0.7 * edges
    parts = {
        "dense": said, "choice": choice, "concept": concept, "neck_concept": neck_concept, "naming": naming,
        "named_right": right, "looks": looks, "edges": edges, "patch_accuracy": accuracy,
    }  # fmt: skip
    return Losses(total, {k: v.detach() for k, v in parts.items()})


def focal(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Binary cross-entropy that easy cases hardly count in (Lin et al., 2017), element by element."""
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    return balance * F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (1 - right) ** 2


def _pool(text: Tensor, valid: Tensor) -> Tensor:
    weight = valid[..., None].float()
    return (text * weight).sum(1) / weight.sum(1)


def _by_patch(table: Tensor, labels: Tensor) -> Tensor:
    """(B, N + 1, T) of things -> (B, P, T) of what the patches show."""
    return torch.gather(table, 1, labels.clamp(min=0)[..., None].expand(-1, -1, table.shape[-1]))


def _naming_loss(heads: AuxiliaryHeads, patches: Tensor, names: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Choose each thing's name among the names of all things; return the loss, and how often the best name fits.

    A thing is the mean of its patches, weighted by the square of how much of a patch it covers, so that small things,
    which fill no patch, have a name too. Of the names that fit, each is compared with those that do not.
    """
    grid = round(patches.shape[1] ** 0.5)
    cover = F.avg_pool2d(batch.masks.float() / 255, batch.masks.shape[-1] // grid).flatten(2) ** 2  # (B, N, P)
    mean = (cover @ patches) / cover.sum(-1, keepdim=True).clamp(min=1e-4)
    thing = heads.patch(mean)
    logits = thing @ names.T * heads.name_scale.abs() * 2 / thing.shape[-1] ** 0.5  # (B, N, names)
    fits, unclear = batch.matches[:, 1:, batch.texts :], batch.unclear[:, 1:, batch.texts :]
    others = logits.masked_fill(fits | unclear, -1e4).logsumexp(-1, keepdim=True)
    loss = (F.softplus(others - logits) * fits).sum(-1) / fits.sum(-1).clamp(min=1)
    has_name = fits.any(-1)
    count = has_name.sum().clamp(min=1)
    best = logits.masked_fill(unclear, -1e4).argmax(-1, keepdim=True)
    right = (torch.gather(fits, 2, best)[..., 0] & has_name).sum() / count
    return (loss * has_name).sum() / count, right


def _concept_loss(logits: Tensor, truth: Tensor) -> Tensor:
    last = torch.arange(logits.shape[-1], device=logits.device) == logits.shape[-1] - 1
    weight = torch.where(last, 0.15, 1.0)  # most patches are background
    return F.cross_entropy(logits, truth, weight=weight, ignore_index=-1)


def _attribute_losses(heads: AuxiliaryHeads, tokens: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    guesses = heads.attributes(tokens.flatten(0, 2)).split(heads.attribute_sizes, dim=-1)
    concept = _concept_loss(guesses[0], truth[:, 0])
    looks = sum(
        F.cross_entropy(guesses[k], truth[:, k], ignore_index=-1, reduction="sum")
        / (truth[:, k] >= 0).sum().clamp(min=1)
        for k in (1, 2, 3)
    )
    icons = (truth[:, 0] >= 0) & (truth[:, 0] < heads.attribute_sizes[0] - 2)
    right = (guesses[0].argmax(-1) == truth[:, 0]) & icons
    return concept, looks, right.sum() / icons.sum().clamp(min=1)


def _edge_loss(heads: AuxiliaryHeads, tokens: Tensor, batch: Batch, labels: Tensor) -> Tensor:
    """How far it is from a patch to the left, top, right and bottom of its thing."""
    thing = (labels - 1).clamp(min=0)
    inside = (labels > 0) & torch.gather(batch.valid, 1, thing)
    boxes = torch.gather(batch.boxes, 1, thing[..., None].expand(-1, -1, 4))
    grid = tokens.shape[1]
    place = (torch.arange(grid, device=tokens.device) + 0.5) / grid
    y, x = torch.meshgrid(place, place, indexing="ij")
    centres = torch.stack([x, y], dim=-1).view(1, -1, 2)
    near, far = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    truth = torch.cat([centres - near, far - centres], dim=-1) * LTRB_SCALE
    error = (heads.edges(tokens.flatten(1, 2)) - truth).abs().mean(-1)
    return (error * inside).sum() / inside.sum().clamp(min=1)
