"""One step of learning: all losses of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.decoder import Decoder
from s3seg.sam3.model import BoxPrompts, ImageFeatures, Prompt, Sam3

from .batches import Batch, normalise
from .dense_losses import AuxiliaryHeads, Losses, dense_losses
from .detection_losses import detection_losses
from .mask_losses import mask_embeddings, mask_losses


def losses(model: Sam3, heads: AuxiliaryHeads, batch: Batch, *, dense_only: bool, precision: str = "fp32") -> Losses:
    """Run the network on a batch and compare it with the truth.

    With `precision` "bf16", matrix products run in bf16; scores, boxes, presence and all losses stay fp32.
    """
    device = batch.images.device.type
    with _precision(model, device, precision):
        tokens = model.vision.trunk(normalise(batch.images))  # (B, G, G, width)
        image = model.features(model.vision.neck(tokens))
        text = model.encode_text(batch.token_ids)
        if not dense_only:
            rows = replace(image, laterals=()).select(batch.row_image)  # the laterals are for masks only
            prompt = prompt_of_rows(model, rows, text, batch)
            encoded = model.encode_prompted(rows, prompt)
            found = model.detect_all(rows, encoded, prompt)
    dense = dense_losses(heads, tokens.float(), image.coarse.float(), text.float(), batch)
    if dense_only:
        return dense
    detection, pairs = detection_losses(found, batch)
    with _precision(model, device, precision):
        masks = mask_embeddings(model, image, encoded, prompt, found, pairs, batch)
    masks = mask_losses(heads, masks, batch)
    return Losses(dense.total + detection.total + masks.total, dense.parts | detection.parts | masks.parts)


@contextmanager
def _precision(model: Sam3, device: str, precision: str) -> Iterator[None]:
    """Run matrix products in a precision, except those of scores, presence, boxes and their position codes."""
    if precision == "fp32":
        yield
        return
    names = [name for name in Decoder.FP32 if isinstance(getattr(model.decoder, name), nn.Module)]
    modules = [model.scoring, *(getattr(model.decoder, name) for name in names)]

    def in_fp32(forward: Callable) -> Callable:
        def run(*inputs: Tensor) -> Tensor:
            with torch.autocast(device, enabled=False):
                return forward(*(x.float() if x.is_floating_point() else x for x in inputs))

        return run

    for module in modules:
        module.forward = in_fp32(module.forward)
    try:
        with torch.autocast(device, torch.bfloat16):
            yield
    finally:
        for module in modules:
            del module.forward  # the class's own is seen again


def prompt_of_rows(model: Sam3, rows: ImageFeatures, text: Tensor, batch: Batch) -> Prompt:
    """Join each row's text with the boxes that are shown; a row without boxes has no CLS token either."""
    said, valid = text[batch.row_text], batch.token_valid[batch.row_text]
    shown = batch.shown_valid.any(1).nonzero()[:, 0]
    if not len(shown):
        return model.prompt(rows, said, valid, None)
    boxes = BoxPrompts(batch.shown_boxes[shown], batch.shown_labels[shown], batch.shown_valid[shown])
    joined = model.prompt(rows.select(shown), said[shown], valid[shown], boxes)
    more = joined.tokens.shape[1] - said.shape[1]
    tokens = F.pad(said, (0, 0, 0, more)).index_copy(0, shown, joined.tokens.to(said.dtype))
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
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -1e9) if masked else logits + attn_mask
    return logits.softmax(-1) @ v
