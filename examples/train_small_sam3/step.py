"""One step of learning: all losses of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.model import BoxPrompts, ImageFeatures, Prompt, Sam3

from .batches import Batch, normalise
from .dense_losses import AuxiliaryHeads, Losses, dense_losses
from .detection_losses import detection_losses, mask_losses


def losses(model: Sam3, heads: AuxiliaryHeads, batch: Batch, *, dense_only: bool) -> Losses:
    """Run the network on a batch and compare it with the truth."""
    tokens = model.vision.trunk(normalise(batch.images))  # (B, G, G, width)
    image = model.features(model.vision.neck(tokens))
    text = model.encode_text(batch.token_ids)
    dense = dense_losses(heads, tokens, image.coarse, text, batch)
    if dense_only:
        return dense
    rows = replace(image, laterals=()).select(batch.row_image)  # the laterals are for masks only
    prompt = prompt_of_rows(model, rows, text, batch)
    encoded = model.encode_prompted(rows, prompt)
    found = model.detect_all(rows, encoded, prompt)
    detection, pairs = detection_losses(found, batch)
    masks = mask_losses(model, heads, image, encoded, prompt, found, pairs, batch)
    return Losses(dense.total + detection.total + masks.total, dense.parts | detection.parts | masks.parts)


def prompt_of_rows(model: Sam3, rows: ImageFeatures, text: Tensor, batch: Batch) -> Prompt:
    """Join each row's text with the boxes that are shown; a row without boxes has no CLS token either."""
    said, valid = text[batch.row_text], batch.token_valid[batch.row_text]
    shown = batch.shown_valid.any(1).nonzero()[:, 0]
    if not len(shown):
        return model.prompt(rows, said, valid, None)
    boxes = BoxPrompts(batch.shown_boxes[shown], batch.shown_labels[shown], batch.shown_valid[shown])
    joined = model.prompt(rows.select(shown), said[shown], valid[shown], boxes)
    more = joined.tokens.shape[1] - said.shape[1]
    tokens = F.pad(said, (0, 0, 0, more)).index_copy(0, shown, joined.tokens)
    return Prompt(tokens, F.pad(valid, (0, more)).index_copy(0, shown, joined.valid))


@contextmanager
def written_out_attention() -> Iterator[None]:
    """Compute attention as it is written in papers: on a CPU its backward pass is faster than PyTorch's own."""
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        bias = (
            attn_mask if attn_mask.dtype != torch.bool else torch.zeros(attn_mask.shape).masked_fill(~attn_mask, -1e9)
        )
        logits = logits + bias
    return logits.softmax(-1) @ v
