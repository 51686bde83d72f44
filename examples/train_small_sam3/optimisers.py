"""Which weights learn by which rule: Muon for matrices in the middle of the network, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import nn

from s3seg.sam3.model import Sam3

from .dense_losses import AuxiliaryHeads
from .muon import Muon
from .settings import Settings

MASK_HEAD_RATE = 1.5
NOT_FOR_MUON = (
    "embed", "presence_token", "reference_boxes", "box_head.layers.2", "geometry.cls", "label_embedding",
    "clicks.decoder.mask_tokens", "clicks.prompts",
)  # fmt: skip


def make_optimisers(model: Sam3, heads: AuxiliaryHeads, settings: Settings) -> tuple[torch.optim.AdamW, Muon]:
    """Sort all weights into the groups of two optimisers."""
    matrices: dict[tuple[float, int], list[nn.Parameter]] = {}
    others: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        rate = MASK_HEAD_RATE if name.startswith("mask_head.") else 1.0
        if _is_matrix(name, weight):
            matrices.setdefault((rate, 3 if name.endswith("qkv.weight") else 1), []).append(weight)
        else:
            decay = 0.03 if weight.ndim > 1 and rate == 1.0 else 0.0
            others.setdefault((rate, decay), []).append(weight)
    for weight in heads.parameters():
        others.setdefault((1.0, 0.03 if weight.ndim > 1 else 0.0), []).append(weight)
    adam = torch.optim.AdamW(
        [{"params": p, "factor": rate, "weight_decay": decay} for (rate, decay), p in others.items()],
        lr=settings.adam_rate, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    muon = Muon(
        [{"params": p, "factor": rate, "parts": parts} for (rate, parts), p in matrices.items()], lr=settings.muon_rate
    )
    return adam, muon


def set_rates(optimisers: tuple[torch.optim.AdamW, Muon], settings: Settings, step: int) -> None:
    """Set the learning rates of a step."""
    share = settings.rate(step)
    for optimiser, full in zip(optimisers, (settings.adam_rate, settings.muon_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = full * group["factor"] * share


def _is_matrix(name: str, weight: nn.Parameter) -> bool:
    inner = weight.ndim in (2, 4) and min(weight.shape[:2]) >= 16
    return inner and not any(part in name for part in NOT_FOR_MUON)
