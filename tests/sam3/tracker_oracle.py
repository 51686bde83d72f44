"""Random models of transformers with a tracker, saved as checkpoints, and their tracker for single images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.sam3.random_models import tiny_config


def tiny_video_config(*, tracker: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A small configuration of a detector with a tracker; ``changes`` are those of `tiny_config`.

    Args:
        tracker: Replaces values of the tracker's mask decoder.
    """
    detector = tiny_config(**changes)
    vision = detector["vision_config"]
    vision["model_type"] = "sam3_vision_model"
    channels, backbone = vision["fpn_hidden_size"], vision["backbone_config"]
    size, patch = backbone["image_size"], backbone["patch_size"]
    return {
        "model_type": "sam3_video",
        "detector_config": detector,
        "tracker_config": {
            "model_type": "sam3_tracker_video",
            "vision_config": vision,
            "image_size": size,
            "memory_attention_hidden_size": channels,
            "memory_attention_feed_forward_hidden_size": 40,
            "memory_attention_num_layers": 1,
            "memory_attention_rope_feat_sizes": [size // patch, size // patch],
            "memory_encoder_hidden_size": channels,
            "memory_encoder_output_channels": 16,
            "mask_downsampler_embed_dim": channels,
            "memory_fuser_embed_dim": channels,
            "memory_fuser_intermediate_dim": 40,
            "prompt_encoder_config": {
                "hidden_size": channels,
                "image_size": size,
                "patch_size": patch,
                "mask_input_channels": 8,
            },
            "mask_decoder_config": {
                "hidden_size": channels,
                "num_attention_heads": 4,
                "mlp_dim": 72,
                "iou_head_hidden_dim": 24,
            }
            | (tracker or {}),
        },
    }


def random_video_model(config: dict[str, Any], folder: Path, *, seed: int = 0) -> Any:
    """A transformers ``Sam3VideoModel`` with random weights, saved to ``folder``."""
    from transformers.models.sam3_video.configuration_sam3_video import Sam3VideoConfig
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    with torch.inference_mode(False):
        model = Sam3VideoModel(Sam3VideoConfig(**config)).eval()
    for parameter in model.parameters():
        spread = 0.2 if parameter.ndim == 1 else 0.7 / max(1, parameter[0].numel()) ** 0.5
        parameter.data += torch.randn(parameter.shape, generator=generator) * spread
    tracker = model.tracker_model
    frequencies = tracker.prompt_encoder.shared_embedding.positional_embedding
    tracker.shared_image_embedding.positional_embedding.copy_(frequencies)  # one table, as in the published file
    # not with save_pretrained, which writes "tracker_model.tracker_model."
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    model.config.save_pretrained(folder)
    return model


def image_tracker(video: Any) -> nn.Module:
    """The ``Sam3TrackerModel`` with the weights of a video model, that takes clicks on single images."""
    from transformers.models.sam3_tracker.configuration_sam3_tracker import Sam3TrackerConfig
    from transformers.models.sam3_tracker.modeling_sam3_tracker import Sam3TrackerModel

    config = video.config.tracker_config.to_dict()
    parts = {name: config[name] for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    # With the neck's 0.5x level, transformers adds the embedding for "no earlier frames" to that level, which it does
    # not use, instead of to the coarsest that it uses, as Meta's implementation does.
    parts["vision_config"] |= {"scale_factors": [4.0, 2.0, 1.0]}
    with torch.inference_mode(False), torch.device("meta"):
        model = Sam3TrackerModel(Sam3TrackerConfig(**parts)).eval()
    model.vision_encoder.backbone = video.detector_model.vision_encoder.backbone
    model.vision_encoder.neck.fpn_layers = video.tracker_neck.fpn_layers[:3]
    for name in ("prompt_encoder", "mask_decoder", "shared_image_embedding", "no_memory_embedding"):
        setattr(model, name, getattr(video.tracker_model, name))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    return model
