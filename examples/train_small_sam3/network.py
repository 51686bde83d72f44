"""The small SAM 3: its configuration and its first weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from s3seg.sam3.config import Sam3Config
from s3seg.sam3.model import Sam3

from .settings import Settings

CONTEXT = 32
HEAD_WIDTH = 32
ROI_SIZE = 3
FIRST_BOX = 0.28
"""Side of the boxes that queries start from, as a share of the image."""


def configuration(settings: Settings, vocab_size: int) -> dict:
    """Return the `config.json` of the network, in the transformers layout."""
    grid, width, channels = settings.grid, settings.vit_width, settings.channels
    transformer = {"hidden_size": channels, "num_attention_heads": max(1, channels // HEAD_WIDTH), "dropout": 0.0}
    clicks = {"mask_decoder_config": {
        "num_attention_heads": transformer["num_attention_heads"], "mlp_dim": 2 * channels,
        "iou_head_hidden_dim": channels,
    }}  # fmt: skip
    return {
        "architectures": ["Sam3Model"],
        "model_type": "sam3",
        "vision_config": {
            "model_type": "sam3_vision_model",
            "backbone_config": {
                "model_type": "sam3_vit_model", "hidden_size": width, "intermediate_size": 3 * width,
                "num_hidden_layers": settings.vit_depth, "num_attention_heads": 4,
                "image_size": settings.image_size, "pretrain_image_size": settings.image_size,
                "patch_size": settings.patch_size, "window_size": grid,
                "global_attn_indexes": list(range(settings.vit_depth)),
            },
            "fpn_hidden_size": channels,
            "backbone_feature_sizes": [[grid * k, grid * k] for k in (4, 2, 1)],
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
        },
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": vocab_size, "hidden_size": settings.text_width,
            "intermediate_size": 4 * settings.text_width, "projection_dim": 64,
            "num_hidden_layers": settings.text_layers, "num_attention_heads": 4, "hidden_act": "gelu",
            "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
        },
        "geometry_encoder_config": {
            **transformer, "num_layers": 1, "intermediate_size": 2 * channels, "roi_size": ROI_SIZE,
        },
        "detr_encoder_config": {**transformer, "num_layers": 1, "intermediate_size": 4 * channels},
        "detr_decoder_config": {
            **transformer, "num_layers": settings.decoder_layers, "intermediate_size": 4 * channels,
            "num_queries": settings.queries,
        },
        "mask_decoder_config": {
            "hidden_size": channels, "num_attention_heads": transformer["num_attention_heads"],
            "num_upsampling_stages": 2,
        },
        "s3seg": {"cls_on_text_prompts": False},
        **({"tracker_config": clicks} if settings.clicks else {}),
    }  # fmt: skip


def new_network(settings: Settings, vocab_size: int) -> Sam3:
    """Build the network with weights that learning can start from.

    Queries start as local detectors: boxes on a grid, and a box head that moves none of them.
    """
    torch.manual_seed(settings.seed)
    model = Sam3(Sam3Config.from_dict(configuration(settings, vocab_size)))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():
        model.text.position_embedding.normal_(std=0.02)
        model.geometry.label_embedding.normal_(std=0.3)
        model.geometry.cls.normal_(std=0.3)
        model.decoder.query_embedding.normal_(std=0.3)
        model.decoder.presence_token.normal_(std=0.3)
        model.decoder.reference_boxes.copy_(torch.logit(_anchors(settings.queries)))
        model.decoder.box_head.layers[-1].weight.zero_()
        if model.clicks is not None:
            for name, weight in model.clicks.named_parameters():
                if weight.ndim < 3 and not weight.any() and not name.endswith("bias"):
                    weight.normal_(std=0.3)  # tokens and labels
        model.vision.trunk.position_embedding.copy_(fourier_positions(settings.grid, settings.vit_width))
    return model


def fourier_positions(grid: int, width: int) -> Tensor:
    """Return position embeddings (grid, grid, width) that say plainly where a token is.

    Without them masks leak: pixel embeddings know what is at a place but not where the place is, and neighbours of
    one kind share a mask.
    """
    frequencies = torch.tensor([0.5, 1.0, 2.0, 3.0]) * 2 * math.pi
    place = (torch.arange(grid) + 0.5) / grid
    waves = torch.cat([(place[:, None] * frequencies).sin(), (place[:, None] * frequencies).cos()], dim=1)
    x, y = waves[None].expand(grid, -1, -1), waves[:, None].expand(-1, grid, -1)
    codes = torch.cat([x, y], dim=-1)  # (grid, grid, 16)
    mixing = torch.linalg.qr(torch.randn(width, codes.shape[-1], generator=torch.Generator().manual_seed(0)))[0]
    return 0.5 * (codes - codes.mean((0, 1))) @ mixing.T


@torch.no_grad()
def whiten_patches(model: Sam3, patches: Tensor) -> None:
    """Set the patch embedding to the principal components of real patches, scaled alike: learning starts faster.

    Args:
        model: The network, changed in place.
        patches: (N, 3, patch, patch), normalised to -1..1.
    """
    weight = model.vision.trunk.patch_embed.weight
    values, vectors = torch.linalg.eigh(torch.cov(patches.flatten(1).T).double())
    values, vectors = values.flip(0).float(), vectors.flip(1).float()
    count = min(len(weight), len(values))
    scaled = vectors[:, :count] / (values[:count] + 0.05 * values[min(20, count - 1)]).sqrt()
    weight[:count] = 0.5 * scaled.T.reshape(count, *weight.shape[1:])


def _anchors(queries: int) -> Tensor:
    """Boxes cxcywh (queries, 4) on a square grid."""
    side = math.isqrt(queries)
    if side * side != queries:
        raise ValueError(f"queries must be a square number, to start on a grid, not {queries}")
    centre = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    extent = torch.full((queries,), FIRST_BOX)
    return torch.stack([x.flatten(), y.flatten(), extent, extent], dim=1)


def save_configuration(settings: Settings, vocab_size: int, folder: Path) -> None:
    """Write `config.json`."""
    text = json.dumps(configuration(settings, vocab_size), indent=1) + "\n"
    (folder / "config.json").write_text(text)
