"""Checkpoint layouts: where each tensor of our model is found in a published checkpoint.

Each layout is a table from our tensor name to a `TensorSource`. In a table:

- ``*`` stands for a layer number, which is the same on both sides.
- A key that names a module covers both its weight and its bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from s3seg.sam3 import lite_text
from s3seg.sam3.sources import Chunk, Computed, Concat, PositionGrid, TensorSource, complete


@dataclass(frozen=True, slots=True)
class Layout:
    """A published naming scheme for the tensors of SAM 3."""

    name: str
    prefix: str
    """Prefix of the detector's tensors in files that also hold a tracker."""
    ignored_prefixes: tuple[str, ...]
    """Prefixes of tensors that belong to the tracker, not to the detector; written without `prefix`."""
    click_prefixes: tuple[str, ...]
    """Prefixes of those that make up the click head, which are read all the same if the file has `click_marker`."""
    click_marker: str
    """A tensor that every checkpoint with a click head has."""
    marker: str
    """A tensor that every checkpoint in this layout has, and none in a layout after it in `LAYOUTS`."""
    table: Mapping[str, TensorSource]
    """Where each of our tensors is found, by our name."""
    unused: tuple[str, ...]
    """Regular expressions for tensors that inference on images never uses; written without `prefix`."""
    infers_config: bool = False
    """Whether the configuration follows from the tensors, so that a file needs no ``config.json``."""

    def source(self, ours: str) -> TensorSource:
        """Return where one of our tensors is found. Names in the result are without `prefix`.

        Raises:
            KeyError: The table has no entry for this name.
        """
        number = re.search(r"\.(\d+)\.", ours)
        general = re.sub(r"\.\d+\.", ".*.", ours, count=1)
        for key, suffix in ((general, ""), general.rsplit(".", 1), (ours, ""), ours.rsplit(".", 1)):
            if found := self.table.get(key):
                return complete(found, number[1] if number else "", suffix)
        raise KeyError(ours)

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """Select the tensors of the detector and the click head: map each name without `prefix` to its name there."""
        by_own_name = {name.removeprefix(self.prefix): name for name in names}
        kept = self.click_prefixes if self.click_marker in by_own_name else ()
        return {
            own: name
            for own, name in by_own_name.items()
            if own.startswith(kept) or not own.startswith(self.ignored_prefixes)
        }

    def contains(self, names: Iterable[str]) -> bool:
        """Whether the file with these names has this layout."""
        return self.marker in self.own_names(names)

    def has_clicks(self, names: Iterable[str]) -> bool:
        """Whether the file with these names has a click head."""
        return self.click_marker in self.own_names(names)

    def is_unused(self, name: str) -> bool:
        """Whether a name (without `prefix`) matches one of the `unused` patterns."""
        return any(re.fullmatch(pattern, name) for pattern in self.unused)


def _separate(ours: str, theirs: str) -> Mapping[str, TensorSource]:
    """Attention that keeps q, k and v as separate tensors on both sides."""
    return {f"{ours}.{n}": f"{theirs}.{n}_proj" for n in "qkv"} | {f"{ours}.out": f"{theirs}.o_proj"}


def _fused(ours: str, theirs: str) -> Mapping[str, TensorSource]:
    """Attention that fuses q, k and v into one tensor in the file, as ``torch.nn.MultiheadAttention`` does."""
    return {f"{ours}.{n}": Chunk(f"{theirs}.in_proj_", i) for i, n in enumerate("qkv")} | {
        f"{ours}.out": f"{theirs}.out_proj"
    }


def _concat(theirs: str) -> Concat:
    return Concat((f"{theirs}.q_proj", f"{theirs}.k_proj", f"{theirs}.v_proj"))


def _mlp(ours: str, theirs: str, layers: int, *, start: int = 1) -> dict[str, TensorSource]:
    """An MLP. Our layers are numbered from 0; the file numbers them from `start`."""
    return {f"{ours}.layers.{i}": f"{theirs}{i + start}" for i in range(layers)}


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
    **_mlp("geometry.layers.*.mlp", "geometry_encoder.layers.*.mlp.fc", 2),
    "geometry.output_norm": "geometry_encoder.output_layer_norm",
    "encoder.layers.*.norm1": "detr_encoder.layers.*.layer_norm1",
    **_separate("encoder.layers.*.self_attention", "detr_encoder.layers.*.self_attn"),
    "encoder.layers.*.norm2": "detr_encoder.layers.*.layer_norm2",
    **_separate("encoder.layers.*.prompt_attention", "detr_encoder.layers.*.cross_attn"),
    "encoder.layers.*.norm3": "detr_encoder.layers.*.layer_norm3",
    **_mlp("encoder.layers.*.mlp", "detr_encoder.layers.*.mlp.fc", 2),
    "decoder.query_embedding": "detr_decoder.query_embed.weight",
    "decoder.reference_boxes": "detr_decoder.reference_points.weight",
    "decoder.presence_token": "detr_decoder.presence_token.weight",
    **_separate("decoder.layers.*.self_attention", "detr_decoder.layers.*.self_attn"),
    "decoder.layers.*.self_norm": "detr_decoder.layers.*.self_attn_layer_norm",
    **_separate("decoder.layers.*.prompt_attention", "detr_decoder.layers.*.text_cross_attn"),
    "decoder.layers.*.prompt_norm": "detr_decoder.layers.*.text_cross_attn_layer_norm",
    **_separate("decoder.layers.*.image_attention", "detr_decoder.layers.*.vision_cross_attn"),
    "decoder.layers.*.image_norm": "detr_decoder.layers.*.vision_cross_attn_layer_norm",
    **_mlp("decoder.layers.*.mlp", "detr_decoder.layers.*.mlp.fc", 2),
    "decoder.layers.*.mlp_norm": "detr_decoder.layers.*.mlp_layer_norm",
    "decoder.norm": "detr_decoder.output_layer_norm",
    **_mlp("decoder.box_head", "detr_decoder.box_head.layer", 3),
    **_mlp("decoder.box_position", "detr_decoder.ref_point_head.layer", 2),
    **_mlp("decoder.bias_x", "detr_decoder.box_rpb_embed_x.layer", 2),
    **_mlp("decoder.bias_y", "detr_decoder.box_rpb_embed_y.layer", 2),
    "decoder.presence_norm": "detr_decoder.presence_layer_norm",
    **_mlp("decoder.presence_head", "detr_decoder.presence_head.layer", 3),
    **_mlp("scoring.prompt_mlp", "dot_product_scoring.text_mlp.layer", 2),
    "scoring.prompt_norm": "dot_product_scoring.text_mlp_out_norm",
    "scoring.prompt_project": "dot_product_scoring.text_proj",
    "scoring.query_project": "dot_product_scoring.query_proj",
    "mask_head.prompt_norm": "mask_decoder.prompt_cross_attn_norm",
    **_separate("mask_head.prompt_attention", "mask_decoder.prompt_cross_attn"),
    "mask_head.convolutions.*": "mask_decoder.pixel_decoder.conv_layers.*",
    "mask_head.norms.*": "mask_decoder.pixel_decoder.norms.*",
    "mask_head.pixel_project": "mask_decoder.instance_projection",
    **_mlp("mask_head.query_mlp", "mask_decoder.mask_embedder.layers.", 3, start=0),
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

TRANSFORMERS_LITE_TEXT = Layout(
    name="transformers, light text encoder",
    prefix="detector_model.",
    ignored_prefixes=("tracker_model.", "tracker_neck."),
    click_prefixes=_CLICK_PREFIXES,
    click_marker=f"{_CLICKS}.iou_token.weight",
    marker="text_encoder.embeddings.token_embedding.weight",
    table=_DETECTOR | _LITE_TEXT | _CLICK_HEAD,
    unused=(
        *_UNUSED,
        r"text_encoder\.projection\.weight",  # MobileCLIP's projection; SAM 3 uses `text_projection`
        r"text_encoder\.layers\.\d+\..*\.num_batches_tracked",  # counters of the batch norms
    ),
)
"""``Sam3LiteTextModel`` of transformers, as in ``vil-uob/sam3-litetext-s0``."""

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
        **_mlp("clicks.decoder.layers.*.mlp", f"{decoder}.transformer.layers.*.mlp.lin", 2),
        **attention("final_attention", "final_attn_token_to_image"),
        "clicks.decoder.final_norm": f"{decoder}.transformer.norm_final_attn",
        "clicks.decoder.up1": f"{decoder}.output_upscaling.0",
        "clicks.decoder.up_norm": f"{decoder}.output_upscaling.1",
        "clicks.decoder.up2": f"{decoder}.output_upscaling.3",
        **_mlp("clicks.decoder.mask_mlps.*", f"{decoder}.output_hypernetworks_mlps.*.layers.", 3, start=0),
        **_mlp("clicks.decoder.iou_head", f"{decoder}.iou_prediction_head.layers.", 3, start=0),
        **_mlp("clicks.decoder.object_head", f"{decoder}.pred_obj_score_head.layers.", 3, start=0),
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
        **_mlp("geometry.layers.*.mlp", "geometry_encoder.encode.*.linear", 2),
        "geometry.output_norm": "geometry_encoder.encode_norm",
        "encoder.layers.*.norm1": "transformer.encoder.layers.*.norm1",
        **_fused("encoder.layers.*.self_attention", "transformer.encoder.layers.*.self_attn"),
        "encoder.layers.*.norm2": "transformer.encoder.layers.*.norm2",
        **_fused("encoder.layers.*.prompt_attention", "transformer.encoder.layers.*.cross_attn_image"),
        "encoder.layers.*.norm3": "transformer.encoder.layers.*.norm3",
        **_mlp("encoder.layers.*.mlp", "transformer.encoder.layers.*.linear", 2),
        "decoder.query_embedding": "transformer.decoder.query_embed.weight",
        "decoder.reference_boxes": "transformer.decoder.reference_points.weight",
        "decoder.presence_token": "transformer.decoder.presence_token.weight",
        **_fused("decoder.layers.*.self_attention", "transformer.decoder.layers.*.self_attn"),
        "decoder.layers.*.self_norm": "transformer.decoder.layers.*.norm2",
        **_fused("decoder.layers.*.prompt_attention", "transformer.decoder.layers.*.ca_text"),
        "decoder.layers.*.prompt_norm": "transformer.decoder.layers.*.catext_norm",
        **_fused("decoder.layers.*.image_attention", "transformer.decoder.layers.*.cross_attn"),
        "decoder.layers.*.image_norm": "transformer.decoder.layers.*.norm1",
        **_mlp("decoder.layers.*.mlp", "transformer.decoder.layers.*.linear", 2),
        "decoder.layers.*.mlp_norm": "transformer.decoder.layers.*.norm3",
        "decoder.norm": "transformer.decoder.norm",
        **_mlp("decoder.box_head", "transformer.decoder.bbox_embed.layers.", 3, start=0),
        **_mlp("decoder.box_position", "transformer.decoder.ref_point_head.layers.", 2, start=0),
        **_mlp("decoder.bias_x", "transformer.decoder.boxRPB_embed_x.layers.", 2, start=0),
        **_mlp("decoder.bias_y", "transformer.decoder.boxRPB_embed_y.layers.", 2, start=0),
        "decoder.presence_norm": "transformer.decoder.presence_token_out_norm",
        **_mlp("decoder.presence_head", "transformer.decoder.presence_token_head.layers.", 3, start=0),
        **_mlp("scoring.prompt_mlp", "dot_prod_scoring.prompt_mlp.layers.", 2, start=0),
        "scoring.prompt_norm": "dot_prod_scoring.prompt_mlp.out_norm",
        "scoring.prompt_project": "dot_prod_scoring.prompt_proj",
        "scoring.query_project": "dot_prod_scoring.hs_proj",
        "mask_head.prompt_norm": "segmentation_head.cross_attn_norm",
        **_fused("mask_head.prompt_attention", "segmentation_head.cross_attend_prompt"),
        "mask_head.convolutions.*": "segmentation_head.pixel_decoder.conv_layers.*",
        "mask_head.norms.*": "segmentation_head.pixel_decoder.norms.*",
        "mask_head.pixel_project": "segmentation_head.instance_seg_head",
        **_mlp("mask_head.query_mlp", "segmentation_head.mask_predictor.mask_embed.layers.", 3, start=0),
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

LAYOUTS = (TRANSFORMERS_LITE_TEXT, TRANSFORMERS, REFERENCE_31, REFERENCE)
"""All layouts, in the order in which they are to be tried."""
