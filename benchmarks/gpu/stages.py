"""What the network has computed after each of its stages, ours and transformers': shows where a difference begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from s3seg.sam3.model import BoxPrompts, Sam3

Stages = dict[str, Tensor]
"""fp32 tensors by the name of the stage, in the order in which they are computed."""


def our_stages(model: Sam3, pixels: Tensor, ids: Tensor, valid: Tensor, boxes: BoxPrompts) -> Stages:
    """Run our network, and keep the output of each stage.

    Args:
        model: Our network.
        pixels: (P, 3, H, W) in -1..1.
        ids: int64 (P, T).
        valid: bool (P, T).
        boxes: The boxes of each prompt.
    """
    patches = model.vision.trunk(pixels)
    maps = model.vision.neck(patches)
    image = model.features(maps)
    prompt = model.prompt(image, model.encode_text(ids), valid, boxes)
    encoded = model.encode_prompted(image, prompt)
    found = model.detect(image, encoded, prompt)
    real = torch.ones(prompt.tokens.shape[:2], dtype=torch.bool) if prompt.valid is None else prompt.valid
    head = model.mask_head
    kernels = head.doubling_kernels()
    embedded = head.embed_pixels(image.laterals, kernels, image.grid, encoded, prompt.tokens, prompt.valid)
    return _stages(patches, maps, prompt.tokens, real, ids.shape[1], encoded, found.queries) | {
        "logits": found.logits.float(),
        "presence": found.presence_logits.float(),
        "pixel embeddings": embedded.float(),
        "mask logits": head(found.queries, embedded).float(),
    }


def their_stages(peer: Any, run: Callable[[], Any], text_length: int) -> Stages:
    """Run transformers' model, and keep the same.

    Args:
        peer: The model.
        run: Runs it for prompts with boxes, and returns its output.
        text_length: Tokens of its padded texts.
    """
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            seen[name], seen[f"{name} given"] = output, kwargs

        return hook

    modules = {
        "backbone": peer.vision_encoder.backbone,
        "vision": peer.vision_encoder,
        "encoder": peer.detr_encoder,
        "decoder": peer.detr_decoder,
        "pixels": peer.mask_decoder.pixel_decoder,
    }
    handles = [one.register_forward_hook(keep(name), with_kwargs=True) for name, one in modules.items()]
    try:
        output = run()
    finally:
        for handle in handles:
            handle.remove()
    tokens, real = seen["encoder given"]["text_features"], seen["encoder given"]["text_mask"]
    return _stages(
        seen["backbone"].last_hidden_state,
        seen["vision"].fpn_hidden_states[:-1],
        tokens,
        real,
        text_length,
        seen["encoder"].last_hidden_state,
        seen["decoder"].intermediate_hidden_states[-1],
    ) | {
        "logits": output.pred_logits.float(),
        "presence": output.presence_logits[:, 0].float(),
        "pixel embeddings": seen["pixels"].float(),
        "mask logits": output.pred_masks.float(),
    }


def _stages(
    patches: Tensor, maps: Any, tokens: Tensor, real: Tensor, text_length: int, encoded: Tensor, queries: Tensor
) -> Stages:
    """Name the outputs that both have in the same form."""
    real = real.to(tokens.device)
    finest, finer, coarse = maps
    return {
        "ViT": patches.float().flatten(1, -2),
        "neck, 4x": finest.float(),
        "neck, 2x": finer.float(),
        "neck, 1x": coarse.float(),
        "text tokens": _compact(tokens[:, :text_length], real[:, :text_length]),
        "box tokens": _compact(tokens[:, text_length:], real[:, text_length:]),
        "encoder": encoded.float(),
        "decoder queries": queries.float(),
    }


def _compact(tokens: Tensor, real: Tensor) -> Tensor:
    """Move padding to the end and make it 0: the two have it in different places."""
    order = real.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[..., None]
    return torch.where(real[..., None], tokens, 0).gather(1, order.expand_as(tokens)).float()
