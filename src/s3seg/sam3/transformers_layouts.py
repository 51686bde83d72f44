"""The layouts of transformers: tables of the names that its SAM 3 and its SAM3-LiteText give to tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from s3seg.sam3 import lite_text
from s3seg.sam3.layouts import Layout, mlp
from s3seg.sam3.sources import Computed, Concat, PositionGrid, TensorSource


def _separate(ours: str, theirs: str) -> Mapping[str, TensorSource]:
    """Attention that keeps q, k and v as separate tensors on both sides."""
    return {f"{ours}.{n}": f"{theirs}.{n}_proj" for n in "qkv"} | {f"{ours}.out": f"{theirs}.o_proj"}


def _concat(theirs: str) -> Concat:
    return Concat((f"{theirs}.q_proj", f"{theirs}.k_proj", f"{theirs}.v_proj"))


def _three_layers(ours: str, theirs: str) -> dict[str, TensorSource]:
    """An MLP of three layers, of which transformers calls the first ``proj_in`` and the last ``proj_out``."""
    names = ("proj_in", "layers.0", "proj_out")
    return {f"{ours}.layers.{i}": f"{theirs}.{name}" for i, name in enumerate(names)}


def _norm(theirs: str) -> tuple[str, ...]:
    """The tensors of a batch norm."""
    return tuple(f"{theirs}.{name}" for name in ("weight", "bias", "running_mean", "running_var"))


def _norm_shapes(width: int) -> tuple[tuple[int, ...], ...]:
    return ((width,),) * 4


def _scale(width: int) -> tuple[int, ...]:
    """The shape of a layer scale."""
    return (width, 1, 1)


def _kernel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as a 2-D convolution of the weight of a 1-D convolution (out, in, kernel)."""
    return (*shape[:2], 1, shape[2])


_VIT, _CLIP = "vision_encoder.backbone", "text_encoder.text_model"
_LITE = "text_encoder.layers.*"
_MIXER, _FEED_FORWARD = f"{_LITE}.token_mixer", f"{_LITE}.conv_feed_forward"
_MIXER_NORMS = (
    *_norm(f"{_MIXER}.mixer.batchnorm_conv"),
    *_norm(f"{_MIXER}.mixer.batchnorm_skip"),
    *_norm(f"{_MIXER}.reference_batchnorm"),
)

_DETECTOR: dict[str, TensorSource] = {
    "vision.trunk.patch_embed": f"{_VIT}.embeddings.patch_embeddings.projection",
    "vision.trunk.position_embedding": PositionGrid(f"{_VIT}.embeddings.position_embeddings", 0),
    "vision.trunk.norm": f"{_VIT}.layer_norm",
    "vision.trunk.layers.*.norm1": f"{_VIT}.layers.*.layer_norm1",
    "vision.trunk.layers.*.attention.qkv": _concat(f"{_VIT}.layers.*.attention"),
    "vision.trunk.layers.*.attention.out": f"{_VIT}.layers.*.attention.o_proj",
    "vision.trunk.layers.*.norm2": f"{_VIT}.layers.*.layer_norm2",
    "vision.trunk.layers.*.fc1": f"{_VIT}.layers.*.mlp.fc1",
    "vision.trunk.layers.*.fc2": f"{_VIT}.layers.*.mlp.fc2",
    "vision.neck.up4_first": "vision_encoder.neck.fpn_layers.0.scale_layers.0",
    "vision.neck.up4_second": "vision_encoder.neck.fpn_layers.0.scale_layers.2",
    "vision.neck.up2": "vision_encoder.neck.fpn_layers.1.scale_layers.0",
    "vision.neck.project.*": "vision_encoder.neck.fpn_layers.*.proj1",
    "vision.neck.smooth.*": "vision_encoder.neck.fpn_layers.*.proj2",
    "geometry.label_embedding": "geometry_encoder.label_embed.weight",
    "geometry.cls": "geometry_encoder.cls_embed.weight",
    "geometry.coordinates": "geometry_encoder.boxes_direct_project",
    "geometry.image_norm": "geometry_encoder.vision_layer_norm",
    "geometry.pool": "geometry_encoder.boxes_pool_project",
    "geometry.position": "geometry_encoder.boxes_pos_enc_project",
    "geometry.project": "geometry_encoder.final_proj",
    "geometry.norm": "geometry_encoder.prompt_layer_norm",
    "geometry.layers.*.norm1": "geometry_encoder.layers.*.layer_norm1",
    **_separate("geometry.layers.*.self_attention", "geometry_encoder.layers.*.self_attn"),
    "geometry.layers.*.norm2": "geometry_encoder.layers.*.layer_norm2",
    **_separate("geometry.layers.*.image_attention", "geometry_encoder.layers.*.cross_attn"),
    "geometry.layers.*.norm3": "geometry_encoder.layers.*.layer_norm3",
    **mlp("geometry.layers.*.mlp", "geometry_encoder.layers.*.mlp.fc", 2),
    "geometry.output_norm": "geometry_encoder.output_layer_norm",
    "encoder.layers.*.norm1": "detr_encoder.layers.*.layer_norm1",
    **_separate("encoder.layers.*.self_attention", "detr_encoder.layers.*.self_attn"),
    "encoder.layers.*.norm2": "detr_encoder.layers.*.layer_norm2",
    **_separate("encoder.layers.*.prompt_attention", "detr_encoder.layers.*.cross_attn"),
    "encoder.layers.*.norm3": "detr_encoder.layers.*.layer_norm3",
    **mlp("encoder.layers.*.mlp", "detr_encoder.layers.*.mlp.fc", 2),
    "decoder.query_embedding": "detr_decoder.query_embed.weight",
    "decoder.reference_boxes": "detr_decoder.reference_points.weight",
    "decoder.presence_token": "detr_decoder.presence_token.weight",
    **_separate("decoder.layers.*.self_attention", "detr_decoder.layers.*.self_attn"),
    "decoder.layers.*.self_norm": "detr_decoder.layers.*.self_attn_layer_norm",
    **_separate("decoder.layers.*.prompt_attention", "detr_decoder.layers.*.text_cross_attn"),
    "decoder.layers.*.prompt_norm": "detr_decoder.layers.*.text_cross_attn_layer_norm",
    **_separate("decoder.layers.*.image_attention", "detr_decoder.layers.*.vision_cross_attn"),
    "decoder.layers.*.image_norm": "detr_decoder.layers.*.vision_cross_attn_layer_norm",
    **mlp("decoder.layers.*.mlp", "detr_decoder.layers.*.mlp.fc", 2),
    "decoder.layers.*.mlp_norm": "detr_decoder.layers.*.mlp_layer_norm",
    "decoder.norm": "detr_decoder.output_layer_norm",
    **mlp("decoder.box_head", "detr_decoder.box_head.layer", 3),
    **mlp("decoder.box_position", "detr_decoder.ref_point_head.layer", 2),
    **mlp("decoder.bias_x", "detr_decoder.box_rpb_embed_x.layer", 2),
    **mlp("decoder.bias_y", "detr_decoder.box_rpb_embed_y.layer", 2),
    "decoder.presence_norm": "detr_decoder.presence_layer_norm",
    **mlp("decoder.presence_head", "detr_decoder.presence_head.layer", 3),
    **mlp("scoring.prompt_mlp", "dot_product_scoring.text_mlp.layer", 2),
    "scoring.prompt_norm": "dot_product_scoring.text_mlp_out_norm",
    "scoring.prompt_project": "dot_product_scoring.text_proj",
    "scoring.query_project": "dot_product_scoring.query_proj",
    "mask_head.prompt_norm": "mask_decoder.prompt_cross_attn_norm",
    **_separate("mask_head.prompt_attention", "mask_decoder.prompt_cross_attn"),
    "mask_head.convolutions.*": "mask_decoder.pixel_decoder.conv_layers.*",
    "mask_head.norms.*": "mask_decoder.pixel_decoder.norms.*",
    "mask_head.pixel_project": "mask_decoder.instance_projection",
    **mlp("mask_head.query_mlp", "mask_decoder.mask_embedder.layers.", 3, start=0),
}
_CLIP_TEXT: dict[str, TensorSource] = {
    "text.token_embedding": f"{_CLIP}.embeddings.token_embedding",
    "text.position_embedding": f"{_CLIP}.embeddings.position_embedding.weight",
    "text.layers.*.norm1": f"{_CLIP}.encoder.layers.*.layer_norm1",
    "text.layers.*.qkv": _concat(f"{_CLIP}.encoder.layers.*.self_attn"),
    "text.layers.*.out": f"{_CLIP}.encoder.layers.*.self_attn.out_proj",
    "text.layers.*.norm2": f"{_CLIP}.encoder.layers.*.layer_norm2",
    "text.layers.*.fc1": f"{_CLIP}.encoder.layers.*.mlp.fc1",
    "text.layers.*.fc2": f"{_CLIP}.encoder.layers.*.mlp.fc2",
    "text.norm": f"{_CLIP}.final_layer_norm",
    "text.project": "text_projection",
}
_LITE_TEXT: dict[str, TensorSource] = {
    "text.token_embedding": "text_encoder.embeddings.token_embedding",
    "text.position_embedding": Computed(
        ("text_encoder.embeddings.position_embedding.position_embedding",),
        lambda embedding: embedding[0, 0],
        lambda shape: ((1, 1, *shape),),
    ),
    "text.layers.*.norm1": f"{_LITE}.layer_norm1",
    "text.layers.*.qkv": _concat(f"{_LITE}.self_attn"),
    "text.layers.*.out": f"{_LITE}.self_attn.out_proj",
    "text.layers.*.norm2": f"{_LITE}.layer_norm2",
    "text.layers.*.fc1": f"{_LITE}.mlp.fc1",
    "text.layers.*.fc2": f"{_LITE}.mlp.fc2",
    "text.layers.*.token_mixer.weight": Computed(
        (f"{_MIXER}.layer_scale", f"{_MIXER}.mixer.conv.weight", *_MIXER_NORMS),
        lambda scale, conv, *norms: lite_text.fuse_token_mixer(scale, conv, norms[:4], norms[4:8], norms[8:]),
        lambda shape: (_scale(shape[0]), _kernel(shape), *3 * _norm_shapes(shape[0])),
    ),
    "text.layers.*.token_mixer.bias": Computed(
        (f"{_MIXER}.layer_scale", *_MIXER_NORMS),
        lambda scale, *norms: lite_text.fuse_token_mixer_bias(scale, norms[:4], norms[4:8], norms[8:]),
        lambda shape: (_scale(shape[0]), *3 * _norm_shapes(shape[0])),
    ),
    "text.layers.*.depthwise.weight": Computed(
        (f"{_FEED_FORWARD}.depthwise_conv.weight", *_norm(f"{_FEED_FORWARD}.depthwise_batchnorm")),
        lambda conv, *norm: lite_text.fuse_depthwise(conv, norm),
        lambda shape: (_kernel(shape), *_norm_shapes(shape[0])),
    ),
    "text.layers.*.depthwise.bias": Computed(
        _norm(f"{_FEED_FORWARD}.depthwise_batchnorm"),
        lambda *norm: lite_text.fuse_depthwise_bias(norm),
        lambda shape: _norm_shapes(shape[0]),
    ),
    "text.layers.*.expand.weight": Computed(
        (f"{_FEED_FORWARD}.mlp.fc1.weight",),
        lambda weight: weight[:, :, 0, 0],
        lambda shape: ((*shape, 1, 1),),
    ),
    "text.layers.*.expand.bias": f"{_FEED_FORWARD}.mlp.fc1.bias",
    "text.layers.*.reduce.weight": Computed(
        (f"{_LITE}.layer_scale", f"{_FEED_FORWARD}.mlp.fc2.weight"),
        lambda scale, weight: scale.flatten()[:, None] * weight[:, :, 0, 0],
        lambda shape: (_scale(shape[0]), (*shape, 1, 1)),
    ),
    "text.layers.*.reduce.bias": Computed(
        (f"{_LITE}.layer_scale", f"{_FEED_FORWARD}.mlp.fc2.bias"),
        lambda scale, bias: scale.flatten() * bias,
        lambda shape: (_scale(shape[0]), shape),
    ),
    "text.norm": "text_encoder.final_layer_norm",
    "text.project": "text_projection",
}
_NECK, _CLICKS, _CLICK_PROMPTS = "tracker_neck.fpn_layers", "tracker_model.mask_decoder", "tracker_model.prompt_encoder"
_CLICK_HEAD: dict[str, TensorSource] = {
    "clicks.neck.up4_first": f"{_NECK}.0.scale_layers.0",
    "clicks.neck.up4_second": f"{_NECK}.0.scale_layers.2",
    "clicks.neck.up2": f"{_NECK}.1.scale_layers.0",
    "clicks.neck.project.*": f"{_NECK}.*.proj1",
    "clicks.neck.smooth.*": f"{_NECK}.*.proj2",
    "clicks.no_memory": "tracker_model.no_memory_embedding",
    "clicks.quarter_project": f"{_CLICKS}.conv_s0",
    "clicks.half_project": f"{_CLICKS}.conv_s1",
    "clicks.prompts.frequencies": f"{_CLICK_PROMPTS}.shared_embedding.positional_embedding",
    "clicks.prompts.labels": f"{_CLICK_PROMPTS}.point_embed.weight",
    "clicks.prompts.no_point": f"{_CLICK_PROMPTS}.not_a_point_embed.weight",
    "clicks.prompts.no_mask": f"{_CLICK_PROMPTS}.no_mask_embed.weight",
    "clicks.prompts.mask_down1": f"{_CLICK_PROMPTS}.mask_embed.conv1",
    "clicks.prompts.mask_norm1": f"{_CLICK_PROMPTS}.mask_embed.layer_norm1",
    "clicks.prompts.mask_down2": f"{_CLICK_PROMPTS}.mask_embed.conv2",
    "clicks.prompts.mask_norm2": f"{_CLICK_PROMPTS}.mask_embed.layer_norm2",
    "clicks.prompts.mask_project": f"{_CLICK_PROMPTS}.mask_embed.conv3",
    "clicks.decoder.object_token": f"{_CLICKS}.obj_score_token.weight",
    "clicks.decoder.iou_token": f"{_CLICKS}.iou_token.weight",
    "clicks.decoder.mask_tokens": f"{_CLICKS}.mask_tokens.weight",
    **_separate("clicks.decoder.layers.*.self_attention", f"{_CLICKS}.transformer.layers.*.self_attn"),
    "clicks.decoder.layers.*.norm1": f"{_CLICKS}.transformer.layers.*.layer_norm1",
    **_separate("clicks.decoder.layers.*.image_attention", f"{_CLICKS}.transformer.layers.*.cross_attn_token_to_image"),
    "clicks.decoder.layers.*.norm2": f"{_CLICKS}.transformer.layers.*.layer_norm2",
    "clicks.decoder.layers.*.mlp.layers.0": f"{_CLICKS}.transformer.layers.*.mlp.proj_in",
    "clicks.decoder.layers.*.mlp.layers.1": f"{_CLICKS}.transformer.layers.*.mlp.proj_out",
    "clicks.decoder.layers.*.norm3": f"{_CLICKS}.transformer.layers.*.layer_norm3",
    **_separate("clicks.decoder.layers.*.token_attention", f"{_CLICKS}.transformer.layers.*.cross_attn_image_to_token"),
    "clicks.decoder.layers.*.norm4": f"{_CLICKS}.transformer.layers.*.layer_norm4",
    **_separate("clicks.decoder.final_attention", f"{_CLICKS}.transformer.final_attn_token_to_image"),
    "clicks.decoder.final_norm": f"{_CLICKS}.transformer.layer_norm_final_attn",
    "clicks.decoder.up1": f"{_CLICKS}.upscale_conv1",
    "clicks.decoder.up_norm": f"{_CLICKS}.upscale_layer_norm",
    "clicks.decoder.up2": f"{_CLICKS}.upscale_conv2",
    **_three_layers("clicks.decoder.mask_mlps.*", f"{_CLICKS}.output_hypernetworks_mlps.*"),
    **_three_layers("clicks.decoder.iou_head", f"{_CLICKS}.iou_prediction_head"),
    **_three_layers("clicks.decoder.object_head", f"{_CLICKS}.pred_obj_score_head"),
}
_CLICK_PREFIXES = (f"{_CLICK_PROMPTS}.", f"{_CLICKS}.", "tracker_model.no_memory_embedding", "tracker_neck.")
_UNUSED = (
    r"tracker_neck\.fpn_layers\.3\..*",  # the neck's 0.5x level
    r"vision_encoder\.neck\.fpn_layers\.3\..*",  # the neck's 0.5x level
    r"mask_decoder\.semantic_projection\..*",
)

TRANSFORMERS = Layout(
    name="transformers",
    prefix="detector_model.",
    ignored_prefixes=("tracker_model.", "tracker_neck."),
    click_prefixes=_CLICK_PREFIXES,
    click_marker=f"{_CLICKS}.iou_token.weight",
    marker="detr_decoder.presence_token.weight",
    table=_DETECTOR | _CLIP_TEXT | _CLICK_HEAD,
    unused=(*_UNUSED, r"text_encoder\.text_projection\.weight"),  # CLIP's projection; SAM 3 uses `text_projection`
)
"""``Sam3Model`` and ``Sam3VideoModel`` of transformers, as in ``facebook/sam3``: ``model.safetensors``."""

TRANSFORMERS_LITE_TEXT = replace(
    TRANSFORMERS,
    name="transformers, light text encoder",
    marker="text_encoder.embeddings.token_embedding.weight",
    table=_DETECTOR | _LITE_TEXT | _CLICK_HEAD,
    unused=(
        *_UNUSED,
        r"text_encoder\.projection\.weight",  # MobileCLIP's projection; SAM 3 uses `text_projection`
        r"text_encoder\.layers\.\d+\..*\.num_batches_tracked",  # counters of the batch norms
    ),
)
"""``Sam3LiteTextModel`` of transformers, as in ``vil-uob/sam3-litetext-s0``."""
