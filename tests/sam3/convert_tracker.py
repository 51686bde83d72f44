"""Convert the tracker of SAM 3 from transformers' names to those of Meta's files, without the package's own tables.

The rules are those of transformers' ``convert_sam3_video_to_hf.py``, read backwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RULES = [
    (r"^tracker_neck\.fpn_layers\.(\d)\.proj1", r"NECK.\1.conv_1x1"),
    (r"^tracker_neck\.fpn_layers\.(\d)\.proj2", r"NECK.\1.conv_3x3"),
    (r"^tracker_neck\.fpn_layers\.0\.scale_layers\.0", r"NECK.0.dconv_2x2_0"),
    (r"^tracker_neck\.fpn_layers\.0\.scale_layers\.2", r"NECK.0.dconv_2x2_1"),
    (r"^tracker_neck\.fpn_layers\.1\.scale_layers\.0", r"NECK.1.dconv_2x2"),
    (r"^NECK", r"detector.backbone.vision_backbone.sam2_convs"),
    (r"^tracker_model\.prompt_encoder\.shared_embedding\.positional_embedding", r"PE.pe_layer.GAUSSIAN"),
    (r"^tracker_model\.prompt_encoder\.mask_embed\.conv1", r"PE.mask_downscaling.0"),
    (r"^tracker_model\.prompt_encoder\.mask_embed\.layer_norm1", r"PE.mask_downscaling.1"),
    (r"^tracker_model\.prompt_encoder\.mask_embed\.conv2", r"PE.mask_downscaling.3"),
    (r"^tracker_model\.prompt_encoder\.mask_embed\.layer_norm2", r"PE.mask_downscaling.4"),
    (r"^tracker_model\.prompt_encoder\.mask_embed\.conv3", r"PE.mask_downscaling.6"),
    (r"^tracker_model\.prompt_encoder", r"PE"),
    (r"^PE", r"tracker.sam_prompt_encoder"),
    (r"GAUSSIAN", r"positional_encoding_gaussian_matrix"),
    (r"^tracker_model\.no_memory_embedding", r"tracker.no_mem_embed"),
    (r"^tracker_model\.memory_temporal_positional_encoding", r"tracker.maskmem_tpos_enc"),
    (r"^tracker_model\.mask_decoder\.upscale_conv1", r"MD.output_upscaling.0"),
    (r"^tracker_model\.mask_decoder\.upscale_layer_norm", r"MD.output_upscaling.1"),
    (r"^tracker_model\.mask_decoder\.upscale_conv2", r"MD.output_upscaling.3"),
    (r"^tracker_model\.mask_decoder\.transformer\.layers\.(\d)\.mlp\.proj_in", r"MD.transformer.layers.\1.mlp.lin1"),
    (r"^tracker_model\.mask_decoder\.transformer\.layers\.(\d)\.mlp\.proj_out", r"MD.transformer.layers.\1.mlp.lin2"),
    (r"^tracker_model\.mask_decoder", r"MD"),
    (r"^(MD\..*(?:head|mlps\.\d))\.layers\.0", r"\1.layers.1"),
    (r"^(MD\..*(?:head|mlps\.\d))\.proj_in", r"\1.layers.0"),
    (r"^(MD\..*(?:head|mlps\.\d))\.proj_out", r"\1.layers.2"),
    (r"^(MD\..*)\.o_proj", r"\1.out_proj"),
    (r"^(MD\..*)\.layer_norm", r"\1.norm"),
    (r"^MD", r"tracker.sam_mask_decoder"),
]  # fmt: skip


def to_reference(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image part of the tracker, and one tensor of its memory, with the names of ``sam3.pt``.

    Args:
        tensors: With the names ``tracker_model.*`` and ``tracker_neck.*``; others are left out.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        renamed = name
        for pattern, replacement in _RULES:
            renamed = re.sub(pattern, replacement, renamed)
        if renamed.endswith(".point_embed.weight"):
            prefix = renamed.removesuffix("point_embed.weight")
            out |= {f"{prefix}point_embeddings.{i}.weight": tensor[i : i + 1].clone() for i in range(4)}
        elif renamed != name:
            out[renamed] = tensor
    return out


def to_reference_31(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with the names of ``sam3.1_multiplex.pt``, in which the parts of the click head are ``interactive``."""
    out: dict[str, Tensor] = {}
    for name, tensor in to_reference(tensors).items():
        if ".sam2_convs.3." in name:
            continue
        name = name.replace(".sam2_convs.", ".interactive_convs.")
        name = name.replace("tracker.sam_", "tracker.model.interactive_sam_")
        name = name.replace("tracker.no_mem_embed", "tracker.model.interactivity_no_mem_embed")
        out[name.replace("tracker.maskmem", "tracker.model.maskmem")] = tensor
    return out
