"""Convert weights between published layouts, written independently of the package's own tables."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_RULES = [
    (r"^backbone\.vision_backbone\.trunk\.patch_embed\.proj", r"VIT.embeddings.patch_embeddings.projection"),
    (r"^backbone\.vision_backbone\.trunk\.pos_embed", r"VIT.embeddings.position_embeddings"),
    (r"^backbone\.vision_backbone\.trunk\.ln_pre", r"VIT.layer_norm"),
    (r"^backbone\.vision_backbone\.trunk\.blocks\.(\d+)\.norm", r"VIT.layers.\1.layer_norm"),
    (r"^backbone\.vision_backbone\.trunk\.blocks\.(\d+)\.attn\.proj", r"VIT.layers.\1.attention.o_proj"),
    (r"^backbone\.vision_backbone\.trunk\.blocks\.(\d+)\.attn\.qkv", r"VIT.layers.\1.attention.qkv"),
    (r"^backbone\.vision_backbone\.trunk\.blocks", r"VIT.layers"),
    (r"^VIT", r"vision_encoder.backbone"),
    (r"^backbone\.vision_backbone\.convs\.(\d)\.dconv_2x2(_0)?\.", r"NECK.\1.scale_layers.0."),
    (r"^backbone\.vision_backbone\.convs\.(\d)\.dconv_2x2_1\.", r"NECK.\1.scale_layers.2."),
    (r"^backbone\.vision_backbone\.convs\.(\d)\.conv_1x1", r"NECK.\1.proj1"),
    (r"^backbone\.vision_backbone\.convs\.(\d)\.conv_3x3", r"NECK.\1.proj2"),
    (r"^NECK", r"vision_encoder.neck.fpn_layers"),
    (r"^backbone\.language_backbone\.resizer", r"text_projection"),
    (r"^backbone\.language_backbone\.encoder\.", r"CLIP."),
    (r"^CLIP\.text_projection", r"text_encoder.text_projection.weight"),
    (r"^CLIP\.token_embedding", r"CLIP.embeddings.token_embedding"),
    (r"^CLIP\.positional_embedding", r"CLIP.embeddings.position_embedding.weight"),
    (r"^CLIP\.ln_final", r"CLIP.final_layer_norm"),
    (r"^CLIP\.transformer\.resblocks", r"CLIP.encoder.layers"),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.c_fc\.", r".fc1."),
    (r"\.c_proj\.", r".fc2."),
    (r"^(CLIP\..*)\.attn\.", r"\1.self_attn."),
    (r"^CLIP", r"text_encoder.text_model"),
    (r"^geometry_encoder\.img_pre_norm", r"geometry_encoder.vision_layer_norm"),
    (r"^geometry_encoder\.encode_norm", r"geometry_encoder.output_layer_norm"),
    (r"^geometry_encoder\.norm", r"geometry_encoder.prompt_layer_norm"),
    (r"^geometry_encoder\.encode\.(\d+)\.cross_attn_image", r"geometry_encoder.layers.\1.cross_attn"),
    (r"^geometry_encoder\.encode\.", r"geometry_encoder.layers."),
    (r"^transformer\.encoder\.layers\.(\d+)\.cross_attn_image", r"detr_encoder.layers.\1.cross_attn"),
    (r"^transformer\.encoder", r"detr_encoder"),
    (r"^((?:geometry|detr)_encoder\.layers\.\d+)\.norm", r"\1.layer_norm"),
    (r"^transformer\.decoder\.layers\.(\d+)\.cross_attn\.", r"detr_decoder.layers.\1.vision_cross_attn."),
    (r"^transformer\.decoder\.layers\.(\d+)\.norm1", r"detr_decoder.layers.\1.vision_cross_attn_layer_norm"),
    (r"^transformer\.decoder\.layers\.(\d+)\.ca_text", r"detr_decoder.layers.\1.text_cross_attn"),
    (
        r"^transformer\.decoder\.layers\.(\d+)\.catext_norm",
        r"detr_decoder.layers.\1.text_cross_attn_layer_norm",
    ),
    (r"^transformer\.decoder\.layers\.(\d+)\.norm2", r"detr_decoder.layers.\1.self_attn_layer_norm"),
    (r"^transformer\.decoder\.layers\.(\d+)\.norm3", r"detr_decoder.layers.\1.mlp_layer_norm"),
    (r"^transformer\.decoder\.norm", r"detr_decoder.output_layer_norm"),
    (r"^transformer\.decoder\.presence_token_out_norm", r"detr_decoder.presence_layer_norm"),
    (r"^transformer\.decoder\.presence_token_head", r"detr_decoder.presence_head"),
    (r"^transformer\.decoder\.bbox_embed", r"detr_decoder.box_head"),
    (r"^transformer\.decoder\.boxRPB_embed_", r"detr_decoder.box_rpb_embed_"),
    (r"^transformer\.decoder", r"detr_decoder"),
    (r"\.linear(\d)\.", r".mlp.fc\1."),
    (r"^dot_prod_scoring\.hs_proj", r"dot_product_scoring.query_proj"),
    (r"^dot_prod_scoring\.prompt_mlp\.out_norm", r"dot_product_scoring.text_mlp_out_norm"),
    (r"^dot_prod_scoring\.prompt_", r"dot_product_scoring.text_"),
    (r"^segmentation_head\.cross_attn_norm", r"mask_decoder.prompt_cross_attn_norm"),
    (r"^segmentation_head\.cross_attend_prompt", r"mask_decoder.prompt_cross_attn"),
    (r"^segmentation_head\.mask_predictor\.mask_embed", r"mask_decoder.mask_embedder"),
    (r"^segmentation_head\.instance_seg_head", r"mask_decoder.instance_projection"),
    (r"^segmentation_head\.semantic_seg_head", r"mask_decoder.semantic_projection"),
    (r"^segmentation_head", r"mask_decoder"),
    (r"^(detr_decoder\..*|dot_product_scoring\..*)\.layers\.0\.(weight|bias)$", r"\1.layer1.\2"),
    (r"^(detr_decoder\..*|dot_product_scoring\..*)\.layers\.1\.(weight|bias)$", r"\1.layer2.\2"),
    (r"^(detr_decoder\..*|dot_product_scoring\..*)\.layers\.2\.(weight|bias)$", r"\1.layer3.\2"),
]


def to_transformers(reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in the transformers layout."""
    out: dict[str, Tensor] = {}
    for name, tensor in reference.items():
        if name.endswith("freqs_cis") or ".points_" in name:
            continue  # derived; unknown to transformers
        renamed = name
        for pattern, replacement in _RULES:
            renamed = re.sub(pattern, replacement, renamed)
        if fused := re.fullmatch(r"(.*)\.(?:in_proj_|qkv\.)(weight|bias)", renamed):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                out[f"{fused[1]}.{part}_proj.{fused[2]}"] = third.contiguous()
        elif renamed.endswith("position_embeddings"):
            out[renamed] = tensor[:, 1:].contiguous()
        elif renamed == "text_encoder.text_projection.weight":
            out[renamed] = tensor.T.contiguous()
        elif re.search(r"(self|cross)_attn\.out_proj|prompt_cross_attn\.out_proj", renamed) and (
            not renamed.startswith("text_encoder")
        ):
            out[renamed.replace("out_proj", "o_proj")] = tensor
        else:
            out[renamed] = tensor
    return out


def to_sam31(reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same detector with the names of SAM 3.1's ``sam3.1_multiplex.pt``; given and returned without ``detector.``.

    The rules follow from the reference's ``model_builder.py``, which builds the detector of 3.1 from the same parts as
    that of 3 (``_create_sam3_transformer``, ``_create_segmentation_head``, ``_create_geometry_encoder``,
    ``_create_dot_product_scoring``, ``_create_text_encoder``, and the same ViT), but with another neck,
    ``Sam3TriViTDetNeck`` with ``scale_factors=[4.0, 2.0, 1.0]``:

    - ``convs`` has no level 3, the 0.5x level;
    - ``sam2_convs`` is gone;
    - ``interactive_convs`` and ``propagation_convs`` are further copies of ``convs``.
    """
    neck = "backbone.vision_backbone."
    dropped = (f"{neck}convs.3.", f"{neck}sam2_convs.")
    kept = {name: tensor for name, tensor in reference.items() if not name.startswith(dropped)}
    copies = {
        name.replace(f"{neck}convs.", f"{neck}{copy}_convs."): torch.ones_like(tensor)
        for name, tensor in kept.items()
        for copy in ("interactive", "propagation")
        if name.startswith(f"{neck}convs.")
    }
    return kept | copies


def with_wider_text(reference: Mapping[str, Tensor], *, width: int, depth: int) -> dict[str, Tensor]:
    """The weights with a random text encoder whose attention heads have 64 channels, as in the full size."""
    clip = "backbone.language_backbone."
    generator = torch.Generator().manual_seed(0)
    vocabulary, old = reference[f"{clip}encoder.token_embedding.weight"].shape
    out = {name: tensor for name, tensor in reference.items() if not name.startswith(clip)}
    blocks = {name: tensor for name, tensor in reference.items() if f"{clip}encoder.transformer.resblocks.0." in name}
    rest = {name: tensor for name, tensor in reference.items() if name.startswith(clip) and "resblocks" not in name}
    for i in range(depth):
        rest |= {name.replace("resblocks.0.", f"resblocks.{i}."): tensor for name, tensor in blocks.items()}
    for name, tensor in rest.items():
        shape = [n if n == vocabulary else width * (n // old) if n % old == 0 else n for n in tensor.shape]
        out[name] = torch.randn(shape, generator=generator) * 0.02
    return out


def with_rotary_tables(
    reference: Mapping[str, Tensor], *, window: int, grid: int, heads: int, global_layers: tuple[int, ...]
) -> dict[str, Tensor]:
    """The weights with the RoPE tables that a published file holds too; only their shapes matter."""
    trunk = "backbone.vision_backbone.trunk."
    width = reference[f"{trunk}patch_embed.proj.weight"].shape[0]
    depth = len([name for name in reference if name.startswith(trunk) and name.endswith(".norm1.weight")])
    return dict(reference) | {
        f"{trunk}blocks.{i}.attn.freqs_cis": torch.zeros(
            (grid if i in global_layers else window) ** 2, width // heads // 2, dtype=torch.complex64
        )
        for i in range(depth)
    }
