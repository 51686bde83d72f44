"""Losses on single patches: each should know, by itself, what it shows and how far its thing reaches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import Batch
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
        self.edges = nn.Linear(width, 4)
        self.pixel_codes = nn.Linear(channels, CODES)
        self.query_codes = nn.Linear(channels, CODES)
        self.semantic = nn.Linear(channels, 1)


@dataclass(frozen=True)
class Losses:
    """A sum to minimise, and its parts for the log."""

    total: Tensor
    parts: dict[str, float]


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
    shown = labels.clamp(min=0)[..., None]
    wanted = torch.gather(batch.matches, 1, shown.expand(-1, -1, batch.matches.shape[-1])).float()  # (B, P, T)
    weight = clear[..., None] * batch.dense
    words = _pool(text, batch.token_valid)
    patches = heads.patch(coarsest.flatten(2).transpose(1, 2))
    logits = patches @ heads.text(words).T * heads.scale.abs() * 2 / patches.shape[-1] ** 0.5 + heads.bias
    said = (focal(logits, wanted, 0.5) * weight).sum() / (wanted * weight).sum().clamp(min=1)
    logits = logits.masked_fill(~batch.dense, -1e4)
    choice = -(F.log_softmax(logits, -1) * wanted).sum(-1) / wanted.sum(-1).clamp(min=1)
    named = (wanted.sum(-1) > 0).float() * clear
    choice = (choice * named).sum() / named.sum().clamp(min=1)
    concept, looks, accuracy = _attribute_losses(heads, tokens, batch, labels)
    edges = _edge_loss(heads, tokens, batch, labels)
    total = 2 * said + 1.5 * choice + 2.5 * concept + 0.5 * looks + 0.7 * edges
    parts = {"dense": said, "choice": choice, "concept": concept, "looks": looks, "edges": edges}
    return Losses(total, {k: v.item() for k, v in parts.items()} | {"patch_accuracy": accuracy})


def focal(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Binary cross-entropy that easy cases hardly count in (Lin et al., 2017), element by element."""
    p = logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    return balance * F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (1 - right) ** 2


def _pool(text: Tensor, valid: Tensor) -> Tensor:
    weight = valid[..., None].float()
    return (text * weight).sum(1) / weight.sum(1)


def _attribute_losses(
    heads: AuxiliaryHeads, tokens: Tensor, batch: Batch, labels: Tensor
) -> tuple[Tensor, Tensor, float]:
    truth = torch.gather(batch.attributes, 1, labels.clamp(min=0)[..., None].expand(-1, -1, 4))
    truth = torch.where(labels[..., None] >= 0, truth, -1).flatten(0, 1)  # (B * P, 4)
    guesses = heads.attributes(tokens.flatten(0, 2)).split(heads.attribute_sizes, dim=-1)
    weight = torch.ones(heads.attribute_sizes[0])
    weight[-1] = 0.15  # most patches are background
    concept = F.cross_entropy(guesses[0], truth[:, 0], weight=weight, ignore_index=-1)
    known = [int((truth[:, k] >= 0).sum()) for k in (1, 2, 3)]
    looks = sum(
        F.cross_entropy(guesses[k], truth[:, k], ignore_index=-1, reduction="sum") / max(1, known[k - 1])
        for k in (1, 2, 3)
    )
    icons = (truth[:, 0] >= 0) & (truth[:, 0] < heads.attribute_sizes[0] - 2)
    right = (guesses[0].argmax(-1) == truth[:, 0])[icons]
    return concept, looks, right.float().mean().item() if len(right) else 0.0


def _edge_loss(heads: AuxiliaryHeads, tokens: Tensor, batch: Batch, labels: Tensor) -> Tensor:
    """How far it is from a patch to the left, top, right and bottom of its thing."""
    thing = (labels - 1).clamp(min=0)
    inside = (labels > 0) & torch.gather(batch.valid, 1, thing)
    boxes = torch.gather(batch.boxes, 1, thing[..., None].expand(-1, -1, 4))
    grid = tokens.shape[1]
    place = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(place, place, indexing="ij")
    centres = torch.stack([x, y], dim=-1).view(1, -1, 2)
    near, far = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    truth = torch.cat([centres - near, far - centres], dim=-1) * LTRB_SCALE
    error = (heads.edges(tokens.flatten(1, 2)) - truth).abs().mean(-1)
    return (error * inside).sum() / inside.sum().clamp(min=1)
