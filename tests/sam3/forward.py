"""Run a model from encoded inputs to its outputs, in the shapes in which transformers returns them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from s3seg.sam3.model import BoxPrompts, ImageFeatures, Sam3


def detect(
    model: Sam3, image: ImageFeatures, text: Tensor, valid: Tensor, boxes: BoxPrompts | None
) -> dict[str, Tensor]:
    """Logits (P, Q), presence logits (P,), boxes (P, Q, 4) as corners, and mask logits (P, Q, H, W)."""
    prompt = model.prompt(image, text, valid, boxes)
    encoded = model.encode_prompted(image, prompt)
    found = model.detect(image, encoded, prompt)
    center, size = found.boxes_cxcywh.chunk(2, dim=-1)
    return {
        "logits": found.logits,
        "presence": found.presence_logits,
        "boxes": torch.cat([center - size / 2, center + size / 2], dim=-1),
        "mask logits": model.masks(image, encoded, prompt, found.queries),
    }


def oracle_outputs(output) -> dict[str, Tensor]:
    """The same from the output of transformers' models."""
    return {
        "logits": output.pred_logits,
        "presence": output.presence_logits[:, 0],
        "boxes": output.pred_boxes,
        "mask logits": output.pred_masks,
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare to 1e-4."""
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert found["mask logits"].std() > 1e-3, "constant masks prove nothing"


def with_cls_on_text_prompts(model: Sam3, cls: bool) -> Sam3:
    """The same model with `Sam3Config.cls_on_text_prompts` set; it shares all weights."""
    twin = Sam3.__new__(Sam3)
    twin.__dict__ = dict(model.__dict__)
    twin.config = dataclasses.replace(model.config, cls_on_text_prompts=cls)
    return twin
