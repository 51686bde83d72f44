"""The layouts of the reference implementation: tables of the names that SAM 3 and SAM 3.1 give to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from s3seg.sam3.layouts import Layout, mlp
from s3seg.sam3.sources import Chunk, Computed, PositionGrid, TensorSource


def _fused(ours: str, theirs: str) -> Mapping[str, TensorSource]:
    """Attention that fuses q, k and v into one tensor in the file, as ``torch.nn.MultiheadAttention`` does."""
    return {f"{ours}.{n}": Chunk(f"{theirs}.in_proj_", i) for i, n in enumerate("qkv")} | {
        f"{ours}.out": f"{theirs}.out_proj"
    }


_VIT, _CLIP = "backbone.vision_backbone.trunk", "backbone.language_backbone.encoder"
_NECK = "backbone.vision_backbone.convs"


def _reference_clicks(neck: str, prompts: str, decoder: str, no_memory: str) -> dict[str, TensorSource]:
    """The click head in the reference implementation, where its four parts have these names."""

    def attention(ours: str, theirs: str) -> Mapping[str, TensorSource]:
        ours, theirs = f"clicks.decoder.{ours}", f"{decoder}.transformer.{theirs}"
        return {f"{ours}.{n}": f"{theirs}.{n}_proj" for n in "qkv"} | {f"{ours}.out": f"{theirs}.out_proj"}

    return {
        "clicks.neck.up4_first": f"{neck}.0.dconv_2x2_0",
        "clicks.neck.up4_second": f"{neck}.0.dconv_2x2_1",
        "clicks.neck.up2": f"{neck}.1.dconv_2x2",
        "clicks.neck.project.*": f"{neck}.*.conv_1x1",
        "clicks.neck.smooth.*": f"{neck}.*.conv_3x3",
        "clicks.no_memory": no_memory,
        "clicks.quarter_project": f"{decoder}.conv_s0",
        "clicks.half_project": f"{decoder}.conv_s1",
        "clicks.prompts.frequencies": f"{prompts}.pe_layer.positional_encoding_gaussian_matrix",
        "clicks.prompts.labels": Computed(
            tuple(f"{prompts}.point_embeddings.{i}.weight" for i in range(4)),
            lambda *labels: torch.cat(labels),
            lambda shape: ((1, *shape[1:]),) * 4,
        ),
        "clicks.prompts.no_point": f"{prompts}.not_a_point_embed.weight",
        "clicks.prompts.no_mask": f"{prompts}.no_mask_embed.weight",
        "clicks.prompts.mask_down1": f"{prompts}.mask_downscaling.0",
        "clicks.prompts.mask_norm1": f"{prompts}.mask_downscaling.1",
        "clicks.prompts.mask_down2": f"{prompts}.mask_downscaling.3",
        "clicks.prompts.mask_norm2": f"{prompts}.mask_downscaling.4",
        "clicks.prompts.mask_project": f"{prompts}.mask_downscaling.6",
        "clicks.decoder.object_token": f"{decoder}.obj_score_token.weight",
        "clicks.decoder.iou_token": f"{decoder}.iou_token.weight",
        "clicks.decoder.mask_tokens": f"{decoder}.mask_tokens.weight",
        **attention("layers.*.self_attention", "layers.*.self_attn"),
        **attention("layers.*.image_attention", "layers.*.cross_attn_token_to_image"),
        **attention("layers.*.token_attention", "layers.*.cross_attn_image_to_token"),
        **{f"clicks.decoder.layers.*.norm{i}": f"{decoder}.transformer.layers.*.norm{i}" for i in range(1, 5)},
        **mlp("clicks.decoder.layers.*.mlp", f"{decoder}.transformer.layers.*.mlp.lin", 2),
        **attention("final_attention", "final_attn_token_to_image"),
        "clicks.decoder.final_norm": f"{decoder}.transformer.norm_final_attn",
        "clicks.decoder.up1": f"{decoder}.output_upscaling.0",
        "clicks.decoder.up_norm": f"{decoder}.output_upscaling.1",
        "clicks.decoder.up2": f"{decoder}.output_upscaling.3",
        **mlp("clicks.decoder.mask_mlps.*", f"{decoder}.output_hypernetworks_mlps.*.layers.", 3, start=0),
        **mlp("clicks.decoder.iou_head", f"{decoder}.iou_prediction_head.layers.", 3, start=0),
        **mlp("clicks.decoder.object_head", f"{decoder}.pred_obj_score_head.layers.", 3, start=0),
    }


_SAM2_NECK, _INTERACTIVE_NECK = "backbone.vision_backbone.sam2_convs", "backbone.vision_backbone.interactive_convs"

REFERENCE = Layout(
    name="reference",
    prefix="detector.",
    ignored_prefixes=(
        "tracker.",
        f"{_SAM2_NECK}.",  # the tracker's neck in SAM 3
        f"{_INTERACTIVE_NECK}.",  # the necks for clicks and for tracking in SAM 3.1
        "backbone.vision_backbone.propagation_convs.",
    ),
    click_prefixes=(
        "tracker.sam_prompt_encoder.",
        "tracker.sam_mask_decoder.",
        "tracker.no_mem_embed",
        f"{_SAM2_NECK}.",
    ),
    click_marker="tracker.sam_mask_decoder.iou_token.weight",
    marker="transformer.decoder.presence_token.weight",
    table={
        "vision.trunk.patch_embed": f"{_VIT}.patch_embed.proj",
        "vision.trunk.position_embedding": PositionGrid(f"{_VIT}.pos_embed", 1),
        "vision.trunk.norm": f"{_VIT}.ln_pre",
        "vision.trunk.layers.*.norm1": f"{_VIT}.blocks.*.norm1",
        "vision.trunk.layers.*.attention.qkv": f"{_VIT}.blocks.*.attn.qkv",
        "vision.trunk.layers.*.attention.out": f"{_VIT}.blocks.*.attn.proj",
        "vision.trunk.layers.*.norm2": f"{_VIT}.blocks.*.norm2",
        "vision.trunk.layers.*.fc1": f"{_VIT}.blocks.*.mlp.fc1",
        "vision.trunk.layers.*.fc2": f"{_VIT}.blocks.*.mlp.fc2",
        "vision.neck.up4_first": f"{_NECK}.0.dconv_2x2_0",
        "vision.neck.up4_second": f"{_NECK}.0.dconv_2x2_1",
        "vision.neck.up2": f"{_NECK}.1.dconv_2x2",
        "vision.neck.project.*": f"{_NECK}.*.conv_1x1",
        "vision.neck.smooth.*": f"{_NECK}.*.conv_3x3",
        "text.token_embedding": f"{_CLIP}.token_embedding",
        "text.position_embedding": f"{_CLIP}.positional_embedding",
        "text.layers.*.norm1": f"{_CLIP}.transformer.resblocks.*.ln_1",
        "text.layers.*.qkv": f"{_CLIP}.transformer.resblocks.*.attn.in_proj_",
        "text.layers.*.out": f"{_CLIP}.transformer.resblocks.*.attn.out_proj",
        "text.layers.*.norm2": f"{_CLIP}.transformer.resblocks.*.ln_2",
        "text.layers.*.fc1": f"{_CLIP}.transformer.resblocks.*.mlp.c_fc",
        "text.layers.*.fc2": f"{_CLIP}.transformer.resblocks.*.mlp.c_proj",
        "text.norm": f"{_CLIP}.ln_final",
        "text.project": "backbone.language_backbone.resizer",
        "geometry.label_embedding": "geometry_encoder.label_embed.weight",
        "geometry.cls": "geometry_encoder.cls_embed.weight",
        "geometry.coordinates": "geometry_encoder.boxes_direct_project",
        "geometry.image_norm": "geometry_encoder.img_pre_norm",
        "geometry.pool": "geometry_encoder.boxes_pool_project",
        "geometry.position": "geometry_encoder.boxes_pos_enc_project",
        "geometry.project": "geometry_encoder.final_proj",
        "geometry.norm": "geometry_encoder.norm",
        "geometry.layers.*.norm1": "geometry_encoder.encode.*.norm1",
        **_fused("geometry.layers.*.self_attention", "geometry_encoder.encode.*.self_attn"),
        "geometry.layers.*.norm2": "geometry_encoder.encode.*.norm2",
        **_fused("geometry.layers.*.image_attention", "geometry_encoder.encode.*.cross_attn_image"),
        "geometry.layers.*.norm3": "geometry_encoder.encode.*.norm3",
        **mlp("geometry.layers.*.mlp", "geometry_encoder.encode.*.linear", 2),
        "geometry.output_norm": "geometry_encoder.encode_norm",
        "encoder.layers.*.norm1": "transformer.encoder.layers.*.norm1",
        **_fused("encoder.layers.*.self_attention", "transformer.encoder.layers.*.self_attn"),
        "encoder.layers.*.norm2": "transformer.encoder.layers.*.norm2",
        **_fused("encoder.layers.*.prompt_attention", "transformer.encoder.layers.*.cross_attn_image"),
        "encoder.layers.*.norm3": "transformer.encoder.layers.*.norm3",
        **mlp("encoder.layers.*.mlp", "transformer.encoder.layers.*.linear", 2),
        "decoder.query_embedding": "transformer.decoder.query_embed.weight",
        "decoder.reference_boxes": "transformer.decoder.reference_points.weight",
        "decoder.presence_token": "transformer.decoder.presence_token.weight",
        **_fused("decoder.layers.*.self_attention", "transformer.decoder.layers.*.self_attn"),
        "decoder.layers.*.self_norm": "transformer.decoder.layers.*.norm2",
        **_fused("decoder.layers.*.prompt_attention", "transformer.decoder.layers.*.ca_text"),
        "decoder.layers.*.prompt_norm": "transformer.decoder.layers.*.catext_norm",
        **_fused("decoder.layers.*.image_attention", "transformer.decoder.layers.*.cross_attn"),
        "decoder.layers.*.image_norm": "transformer.decoder.layers.*.norm1",
        **mlp("decoder.layers.*.mlp", "transformer.decoder.layers.*.linear", 2),
        "decoder.layers.*.mlp_norm": "transformer.decoder.layers.*.norm3",
        "decoder.norm": "transformer.decoder.norm",
        **mlp("decoder.box_head", "transformer.decoder.bbox_embed.layers.", 3, start=0),
        **mlp("decoder.box_position", "transformer.decoder.ref_point_head.layers.", 2, start=0),
        **mlp("decoder.bias_x", "transformer.decoder.boxRPB_embed_x.layers.", 2, start=0),
        **mlp("decoder.bias_y", "transformer.decoder.boxRPB_embed_y.layers.", 2, start=0),
        "decoder.presence_norm": "transformer.decoder.presence_token_out_norm",
        **mlp("decoder.presence_head", "transformer.decoder.presence_token_head.layers.", 3, start=0),
        **mlp("scoring.prompt_mlp", "dot_prod_scoring.prompt_mlp.layers.", 2, start=0),
        "scoring.prompt_norm": "dot_prod_scoring.prompt_mlp.out_norm",
        "scoring.prompt_project": "dot_prod_scoring.prompt_proj",
        "scoring.query_project": "dot_prod_scoring.hs_proj",
        "mask_head.prompt_norm": "segmentation_head.cross_attn_norm",
        **_fused("mask_head.prompt_attention", "segmentation_head.cross_attend_prompt"),
        "mask_head.convolutions.*": "segmentation_head.pixel_decoder.conv_layers.*",
        "mask_head.norms.*": "segmentation_head.pixel_decoder.norms.*",
        "mask_head.pixel_project": "segmentation_head.instance_seg_head",
        **mlp("mask_head.query_mlp", "segmentation_head.mask_predictor.mask_embed.layers.", 3, start=0),
        **_reference_clicks(
            _SAM2_NECK, "tracker.sam_prompt_encoder", "tracker.sam_mask_decoder", "tracker.no_mem_embed"
        ),
    },
    unused=(
        r"backbone\.vision_backbone\.sam2_convs\.3\..*",
        r"backbone\.vision_backbone\.trunk\.blocks\.\d+\.attn\.freqs_cis(_real|_imag)?",  # computed RoPE tables
        r"backbone\.vision_backbone\.convs\.3\..*",  # the neck's 0.5x level
        r"backbone\.language_backbone\.encoder\.text_projection",  # CLIP's projection; SAM 3 uses `resizer`
        r"geometry_encoder\.points_.*",  # point prompts
        r"segmentation_head\.semantic_seg_head\..*",
    ),
    infers_config=True,
)
"""The reference implementation, as in ``sam3.pt``; also a detector of SAM 3.1 without a click head."""

_INTERACTIVE = "tracker.model.interactive_sam_"

REFERENCE_31 = replace(
    REFERENCE,
    name="reference, SAM 3.1",
    click_prefixes=(_INTERACTIVE, "tracker.model.interactivity_no_mem_embed", f"{_INTERACTIVE_NECK}."),
    click_marker=f"{_INTERACTIVE}mask_decoder.iou_token.weight",
    marker=f"{_INTERACTIVE}mask_decoder.iou_token.weight",
    table={
        **REFERENCE.table,
        **_reference_clicks(
            _INTERACTIVE_NECK,
            f"{_INTERACTIVE}prompt_encoder",
            f"{_INTERACTIVE}mask_decoder",
            "tracker.model.interactivity_no_mem_embed",
        ),
    },
)
"""SAM 3.1's ``sam3.1_multiplex.pt``, where the click head is apart from the tracker of videos."""
