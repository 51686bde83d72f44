"""One step of learning: all losses of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from s3seg.sam3.model import BoxPrompts, ImageFeatures, Prompt, Sam3

from .batches import Batch, normalise
from .dense_losses import AuxiliaryHeads, Losses, dense_losses
from .detection_losses import detection_losses, mask_losses


def losses(model: Sam3, heads: AuxiliaryHeads, batch: Batch, *, dense_only: bool) -> Losses:
    """Run the network on a batch and compare it with the truth.

    The attention that PyTorch calls "math" is the fastest in the backward pass on a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH):
        return _losses(model, heads, batch, dense_only=dense_only)


def _losses(model: Sam3, heads: AuxiliaryHeads, batch: Batch, *, dense_only: bool) -> Losses:
    tokens = model.vision.trunk(normalise(batch.images))  # (B, G, G, width)
    image = ImageFeatures(model.vision.neck(tokens))
    text = model.encode_text(batch.token_ids)
    dense = dense_losses(heads, tokens, image.maps[-1], text, batch)
    if dense_only:
        return dense
    rows = image.select(batch.row_image, len(batch.row_image))
    prompt = prompt_of_rows(model, rows, text, batch)
    encoded = model.encode_prompted(rows, prompt)
    found = model.detect_all(rows, encoded, prompt)
    detection, pairs = detection_losses(found, batch)
    masks = mask_losses(model, heads, rows, encoded, prompt, found, pairs, batch)
    return Losses(dense.total + detection.total + masks.total, dense.parts | detection.parts | masks.parts)


def prompt_of_rows(model: Sam3, rows: ImageFeatures, text: Tensor, batch: Batch) -> Prompt:
    """Join each row's text with the boxes that are shown; a row without boxes has no CLS token either."""
    said, valid = text[batch.row_text], batch.token_valid[batch.row_text]
    if not batch.shown_valid.any():
        return model.prompt(rows, said, valid, None)
    boxes = BoxPrompts(batch.shown_boxes, batch.shown_labels, batch.shown_valid)
    prompt = model.prompt(rows, said, valid, boxes)
    seen = prompt.valid.clone()
    seen[:, -1] &= batch.shown_valid.any(1)
    return Prompt(prompt.tokens, torch.as_tensor(seen))
