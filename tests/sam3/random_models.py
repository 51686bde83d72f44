"""Random models of transformers, saved as checkpoints, and a slow ROI-align in place of torchvision's."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def slow_roi_align(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """ROI-align of one image, written out sample by sample: (C, h, w), (B, 4) in cells -> (B, C, size, size)."""
    _, height, width = features.shape
    out = torch.zeros(len(boxes), len(features), size, size)
    for b, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        w, h = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
        nx, ny = math.ceil(w / size), math.ceil(h / size)
        for i in range(size):
            for j in range(size):
                for sy in range(ny):
                    for sx in range(nx):
                        y = y1 + (i + (sy + 0.5) / ny) * h / size
                        x = x1 + (j + (sx + 0.5) / nx) * w / size
                        out[b, :, i, j] += _bilinear(features, y, x, height, width) / (nx * ny)
    return out


def _bilinear(features: Tensor, y: float, x: float, height: int, width: int) -> Tensor:
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(features))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    top = features[:, y0, x0] * (1 - dx) + features[:, y0, x1] * dx
    bottom = features[:, y1, x0] * (1 - dx) + features[:, y1, x1] * dx
    return top * (1 - dy) + bottom * dy


def tiny_config(**changes: Any) -> dict[str, Any]:
    """A small configuration in the transformers form; ``changes`` replace single values of it."""
    sizes = {
        "image_size": 112,
        "patch_size": 14,
        "pretrain_image_size": 56,
        "window": 3,
        "global_layers": [1],
        "depth": 3,
        "width": 48,
        "vision_heads": 4,
        "channels": 32,
        "heads": 4,
        "queries": 9,
        "encoder": 2,
        "decoder": 3,
        "geometry": 2,
        "roi_size": 7,
        "text_width": 40,
        "text_heads": 4,
        "text_depth": 2,
        "vocab_size": 120,
    } | changes
    detr = {
        "hidden_size": sizes["channels"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": 56,
        "dropout": 0.0,
    }
    grid = sizes["image_size"] // sizes["patch_size"]
    return {
        "model_type": "sam3",
        "vision_config": {
            "fpn_hidden_size": sizes["channels"],
            "backbone_feature_sizes": [[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": sizes["width"],
                "intermediate_size": 100,
                "num_hidden_layers": sizes["depth"],
                "num_attention_heads": sizes["vision_heads"],
                "image_size": sizes["image_size"],
                "patch_size": sizes["patch_size"],
                "pretrain_image_size": sizes["pretrain_image_size"],
                "window_size": sizes["window"],
                "global_attn_indexes": sizes["global_layers"],
            },
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": sizes["vocab_size"],
            "hidden_size": sizes["text_width"],
            "intermediate_size": 72,
            "projection_dim": 24,
            "num_hidden_layers": sizes["text_depth"],
            "num_attention_heads": sizes["text_heads"],
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        "geometry_encoder_config": detr | {"num_layers": sizes["geometry"], "roi_size": sizes["roi_size"]},
        "detr_encoder_config": detr | {"num_layers": sizes["encoder"]},
        "detr_decoder_config": detr | {"num_layers": sizes["decoder"], "num_queries": sizes["queries"]},
        "mask_decoder_config": {"hidden_size": sizes["channels"], "num_attention_heads": sizes["heads"]},
    }


def tiny_lite_text_config(**changes: Any) -> dict[str, Any]:
    """A small configuration of a model with a light text encoder; ``changes`` replace values of its text encoder."""
    config = tiny_config()
    config["vision_config"]["model_type"] = "sam3_vision_model"
    text = {
        "vocab_size": 120,
        "hidden_size": 40,
        "intermediate_size": 72,
        "projection_dim": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    } | changes
    return config | {"model_type": "sam3_lite_text", "text_config": text}


def random_oracle(config: dict[str, Any], folder: Path, *, seed: int = 0) -> Any:
    """A transformers ``Sam3Model`` or ``Sam3LiteTextModel`` with random weights, saved to ``folder``.

    Norms, biases and the statistics of batch norms are random too.
    """
    import transformers

    # transformers offers these models only beside torchvision, of which they need one function; the modules import
    # without it.
    family = config["model_type"]
    modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    name = {"sam3": "Sam3", "sam3_lite_text": "Sam3LiteText"}[family]
    modeling.torchvision = SimpleNamespace(
        ops=SimpleNamespace(
            roi_align=lambda features, boxes, size: torch.cat(
                [slow_roi_align(f, b, size) for f, b in zip(features, boxes, strict=True)]
            )
        )
    )
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        model = getattr(modeling, f"{name}Model")(getattr(transformers, f"{name}Config")(**config)).eval()
    for parameter in model.parameters():
        spread = 0.2 if parameter.ndim == 1 else 0.7 / max(1, parameter[0].numel()) ** 0.5
        parameter.data += torch.randn(parameter.shape, generator=generator) * spread
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(generator=generator)
        elif buffer_name.endswith("running_var"):
            buffer.uniform_(0.3, 3, generator=generator)
    model.detr_decoder.reference_points.weight.data.uniform_(-2, 2, generator=generator)
    model.save_pretrained(folder)
    return model
