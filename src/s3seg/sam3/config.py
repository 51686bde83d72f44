"""Model configuration, read from a checkpoint's ``config.json`` or inferred from the shapes of its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3seg.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision transformer. Fields that end in ``_size`` are in pixels."""

    image_size: int = 1008
    patch_size: int = 14
    pretrain_image_size: int = 336  # the position embedding covers this size, and is tiled for larger images
    width: int = 1024
    depth: int = 32
    heads: int = 16
    mlp_width: int = 4736
    window: int = 24  # side of an attention window, in tokens
    global_layers: tuple[int, ...] = (7, 15, 23, 31)  # layers with global instead of windowed attention
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("image_size", "pretrain_image_size"):
            if (size := getattr(self, name)) <= 0 or size % self.patch_size:
                raise CheckpointError(
                    f"{name} must be a positive multiple of patch_size ({self.patch_size}), not {size}"
                )

    @property
    def grid(self) -> int:
        """Side of the patch grid, in tokens."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The causal CLIP text encoder of SAM 3."""

    vocab_size: int = 49_408
    context: int = 32  # longest text in tokens, including the start and end token
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_width: int = 4096
    norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class LiteTextConfig:
    """The light text encoder of SAM3-LiteText. The defaults are those of transformers' ``Sam3LiteTextTextConfig``."""

    vocab_size: int = 49_408
    context: int = 77  # longest text in tokens, including the start and end token
    width: int = 512
    depth: int = 12  # RepMixer blocks included
    heads: int = 8
    mlp_width: int = 2048
    norm_eps: float = 1e-5
    repmixer: bool = True  # whether the first and the last layer are RepMixer blocks
    repmixer_kernel: int = 11  # tokens that a convolution of a RepMixer block covers

    def __post_init__(self) -> None:
        if self.repmixer and self.repmixer_kernel % 2 == 0:
            raise CheckpointError(f"repmixer_kernel_size must be odd, not {self.repmixer_kernel}")

    @property
    def repmixer_layers(self) -> frozenset[int]:
        """The layers that are RepMixer blocks."""
        return frozenset({0, self.depth - 1}) if self.repmixer else frozenset()


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """A stack of transformer layers whose width is `Sam3Config.channels`."""

    depth: int
    heads: int = 8
    mlp_width: int = 2048


@dataclass(frozen=True, slots=True)
class ClickConfig:
    """The click head: SAM 3's tracker for a single image. Its width is `Sam3Config.channels`."""

    heads: int = 8
    mlp_width: int = 2048
    downsample: int = 2  # of the width within attention between tokens and image
    alternatives: int = 3  # masks to choose from when a prompt may mean several objects
    mask_channels: int = 16  # of the encoder of earlier masks
    iou_width: int = 256
    replace_unstable: bool = True  # whether an alternative replaces a single mask that is not stable
    stability_delta: float = 0.05
    stability_threshold: float = 0.98

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], *, channels: int, heads: int) -> ClickConfig:
        """Infer the configuration of a click head from the shapes of its tensors.

        What cannot be inferred, because a tensor is missing, is as in the full-size model.

        Args:
            shapes: Shape by our tensor name.
            channels: `Sam3Config.channels`.
            heads: Attention heads, which no shape tells.
        """
        full = cls()

        def size(name: str, axis: int, default: int) -> int:
            return shapes[name][axis] if name in shapes else default

        inner = size("clicks.decoder.final_attention.q.weight", 0, channels // full.downsample)
        return cls(
            heads=heads,
            mlp_width=size("clicks.decoder.layers.0.mlp.layers.0.weight", 0, full.mlp_width),
            downsample=max(1, channels // max(1, inner)),
            alternatives=size("clicks.decoder.mask_tokens", 0, full.alternatives + 1) - 1,
            mask_channels=size("clicks.prompts.mask_project.weight", 1, full.mask_channels),
            iou_width=size("clicks.decoder.iou_head.layers.0.weight", 0, full.iou_width),
        )


@dataclass(frozen=True, slots=True)
class Sam3Config:
    """Everything that determines the shapes and the arithmetic of a model. The defaults are the full-size SAM 3."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig | LiteTextConfig = field(default_factory=TextConfig)
    channels: int = 256  # width of the neck and of all parts after it
    geometry: TransformerConfig = field(default_factory=lambda: TransformerConfig(depth=3))
    roi_size: int = 7
    encoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(depth=6))
    decoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(depth=6))
    queries: int = 200
    mask_heads: int = 8
    mask_stages: int = 3  # convolutions in the checkpoint's pixel decoder; only two are used
    clicks: ClickConfig | None = None  # None: no click head
    cls_on_text_prompts: bool = True
    """Whether prompts without boxes get the geometry encoder's CLS token too.

    They do in the reference implementation, and do not in transformers. A checkpoint that was trained without it
    says so in its configuration.
    """

    @classmethod
    def from_file(cls, path: Path) -> Sam3Config:
        """Read a ``config.json`` as transformers writes it.

        Raises:
            CheckpointError: The file is not valid JSON, or is not the configuration of a SAM 3.
        """
        raw = _read_json(path)
        try:
            return cls.from_dict(raw)
        except CheckpointError as err:
            raise CheckpointError(f"{path} is not the configuration of a SAM 3: {err}") from err
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as err:
            raise CheckpointError(f"{path} is not the configuration of a SAM 3: {err!r}") from err

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Sam3Config:
        """Read the configuration of transformers' ``Sam3Model`` or ``Sam3LiteTextModel``.

        Missing values get their full-size defaults. A video model's configuration, which wraps that of the image model
        in ``detector_config``, is read too. The click head is that of a ``tracker_config``. An additional section
        ``s3seg`` may set ``cls_on_text_prompts``.

        Raises:
            CheckpointError: It is the configuration of another model.
            ValueError: It uses an option that SAM 3 does not have.
        """
        tracker = raw.get("tracker_config")
        raw = raw.get("detector_config") or raw
        model_type = str(raw.get("model_type", "sam3"))
        if model_type not in _MODEL_TYPES:
            raise CheckpointError(_unsupported(model_type))
        vision, text = raw.get("vision_config") or {}, raw.get("text_config") or {}
        vit = vision.get("backbone_config") or {}
        decoder, mask = raw.get("detr_decoder_config") or {}, raw.get("mask_decoder_config") or {}
        global_layers = vit.get("global_attn_indexes")
        _check_unsupported_options(vision, text, vit)
        return cls(
            vision=VisionConfig(
                **_pick(vit, _VIT),
                rope_theta=float((vit.get("rope_parameters") or {}).get("rope_theta", 10_000.0)),
                global_layers=VisionConfig().global_layers if global_layers is None else tuple(global_layers),
            ),
            text=LiteTextConfig(**_pick(text, _LITE_TEXT))
            if model_type == "sam3_lite_text"
            else TextConfig(**_pick(text, _TEXT)),
            channels=vision.get("fpn_hidden_size", 256),
            geometry=_transformer(raw, "geometry_encoder_config", depth=3),
            roi_size=(raw.get("geometry_encoder_config") or {}).get("roi_size", 7),
            encoder=_transformer(raw, "detr_encoder_config", depth=6),
            decoder=_transformer(raw, "detr_decoder_config", depth=6),
            queries=decoder.get("num_queries", 200),
            mask_heads=mask.get("num_attention_heads", 8),
            mask_stages=mask.get("num_upsampling_stages", 3),
            clicks=None if tracker is None else _clicks(tracker),
            cls_on_text_prompts=(raw.get("s3seg") or {}).get("cls_on_text_prompts", True),
        )

    @classmethod
    def from_reference_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> Sam3Config:
        """Infer the configuration of a checkpoint in the reference layout, which has no ``config.json``.

        The click head is left out: whether there is one, and in which shape, is for the caller to say.

        Widths and depths follow from the shapes of the weights. The RoPE tables ``freqs_cis``, where present, show the
        window, the global layers, the image size and the attention heads of the ViT. Everything else is as in the
        full-size model (text attention heads have 64 channels).

        Args:
            shapes: Shape by tensor name, in the reference layout without the ``detector.`` prefix.

        Raises:
            CheckpointError: A tensor that is needed is missing or has a shape that no SAM 3 has.
        """
        try:
            return _infer(shapes)
        except KeyError as err:
            raise CheckpointError(f"not a SAM 3 in the reference layout: it has no tensor {err}") from err
        except (IndexError, ValueError, ArithmeticError) as err:
            raise CheckpointError(
                f"not a SAM 3 in the reference layout, judging by the shapes of its tensors: {err!r}"
            ) from err


def names_supported_model(path: Path) -> bool:
    """Whether a ``config.json`` is that of a model that `Sam3Config.from_file` reads.

    Raises:
        CheckpointError: The file is not valid JSON.
    """
    raw = _read_json(path)
    inner = raw.get("detector_config") or raw if isinstance(raw, dict) else {}
    return isinstance(inner, dict) and inner.get("model_type") in _MODEL_TYPES


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{path} cannot be read as JSON: {err}") from err


_MODEL_TYPES = ("sam3", "sam3_lite_text")
_SCALES = (4.0, 2.0, 1.0, 0.5)
_VIT = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "pretrain_image_size": "pretrain_image_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "window": "window_size",
    "norm_eps": "layer_norm_eps",
}
_TEXT = {
    "vocab_size": "vocab_size",
    "context": "max_position_embeddings",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "norm_eps": "layer_norm_eps",
}
_CLICK_DECODER = {
    "heads": "num_attention_heads",
    "mlp_width": "mlp_dim",
    "downsample": "attention_downsample_rate",
    "alternatives": "num_multimask_outputs",
    "iou_width": "iou_head_hidden_dim",
    "replace_unstable": "dynamic_multimask_via_stability",
    "stability_delta": "dynamic_multimask_stability_delta",
    "stability_threshold": "dynamic_multimask_stability_thresh",
}
_CLICK_ENCODER = {"mask_channels": "mask_input_channels"}
_LITE_TEXT = _TEXT | {"repmixer": "use_repmixer_blocks", "repmixer_kernel": "repmixer_kernel_size"}


def _unsupported(model_type: str) -> str:
    """Say what a model_type is that is not supported, and what to use instead."""
    if model_type.startswith("sam3_tracker"):
        what = "is SAM 3's tracker by itself, which takes clicks and no text"
    elif model_type.startswith("sam3"):
        what = "is a part of SAM 3, or a model derived from it, that s3seg does not implement"
    else:
        what = "is another model"
    return f"model_type {model_type!r} {what}; use a checkpoint whose model_type is sam3, sam3_video or sam3_lite_text"


def _pick(raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: raw[theirs] for ours, theirs in names.items() if theirs in raw}


def _transformer(raw: Mapping[str, Any], section: str, *, depth: int) -> TransformerConfig:
    part = raw.get(section) or {}
    depth = part.get("num_layers", depth)
    if depth < 1:
        raise ValueError(f"num_layers of {section} must be at least 1, not {depth}")
    return TransformerConfig(
        depth=depth,
        heads=part.get("num_attention_heads", 8),
        mlp_width=part.get("intermediate_size", 2048),
    )


def _clicks(tracker: Mapping[str, Any]) -> ClickConfig:
    prompts, masks = tracker.get("prompt_encoder_config") or {}, tracker.get("mask_decoder_config") or {}
    for name, part, supported in (
        ("num_hidden_layers", masks, 2),
        ("iou_head_depth", masks, 3),
        ("num_point_embeddings", prompts, 4),
        ("hidden_act", prompts, "gelu"),
    ):
        if part.get(name, supported) != supported:
            raise ValueError(f"{name} of the tracker must be {supported!r}, not {part[name]!r}")
    return ClickConfig(**_pick(masks, _CLICK_DECODER), **_pick(prompts, _CLICK_ENCODER))


def _check_unsupported_options(vision: Mapping[str, Any], text: Mapping[str, Any], vit: Mapping[str, Any]) -> None:
    """Raise ValueError for options of transformers that no SAM 3 uses and that are not implemented here."""
    if vit.get("layer_scale_init_value") is not None:
        raise ValueError("layer_scale_init_value of the vision backbone must be null")
    if tuple(vision.get("scale_factors") or _SCALES) not in (_SCALES, _SCALES[:3]):  # SAM 3.1 omits 0.5, as we do
        raise ValueError(f"scale_factors must be [4, 2, 1, 0.5] or [4, 2, 1], not {vision['scale_factors']}")
    for name, part in (("text", text), ("vision backbone", vit)):
        if part.get("hidden_act", "gelu") != "gelu":
            raise ValueError(f"hidden_act of the {name} must be 'gelu', not {part['hidden_act']!r}")


def _infer(shapes: Mapping[str, tuple[int, ...]]) -> Sam3Config:
    vit, clip = "backbone.vision_backbone.trunk.", "backbone.language_backbone.encoder."
    decoder, encoder, geometry = "transformer.decoder.", "transformer.encoder.", "geometry_encoder."
    width, _, patch, _ = shapes[vit + "patch_embed.proj.weight"]
    depth = _count(shapes, vit + "blocks.")
    tables = [shapes.get(f"{vit}blocks.{i}.attn.freqs_cis") for i in range(depth)]
    vision: dict[str, Any] = {}
    if all(tables):
        tokens = [table[0] for table in tables if table]  # window * window, or grid * grid
        vision["window"] = round(min(tokens) ** 0.5)
        vision["image_size"] = round(max(tokens) ** 0.5) * patch
        vision["heads"] = width // (2 * (tables[0] or (0, 1))[1])
        vision["global_layers"] = tuple(i for i, n in enumerate(tokens) if n == max(tokens))
    channels = shapes[decoder + "query_embed.weight"][1]
    heads = shapes[decoder + "boxRPB_embed_x.layers.1.weight"][0]
    text_width = shapes[clip + "token_embedding.weight"][1]
    return Sam3Config(
        vision=VisionConfig(
            patch_size=patch,
            pretrain_image_size=round((shapes[vit + "pos_embed"][1] - 1) ** 0.5) * patch,
            width=width,
            depth=depth,
            mlp_width=shapes[vit + "blocks.0.mlp.fc1.weight"][0],
            **vision,
        ),
        text=TextConfig(
            vocab_size=shapes[clip + "token_embedding.weight"][0],
            context=shapes[clip + "positional_embedding"][0],
            width=text_width,
            depth=_count(shapes, clip + "transformer.resblocks."),
            heads=max(1, text_width // 64),
            mlp_width=shapes[clip + "transformer.resblocks.0.mlp.c_fc.weight"][0],
        ),
        channels=channels,
        geometry=TransformerConfig(
            _count(shapes, geometry + "encode."), heads, shapes[geometry + "encode.0.linear1.weight"][0]
        ),
        roi_size=shapes[geometry + "boxes_pool_project.weight"][-1],
        encoder=TransformerConfig(
            _count(shapes, encoder + "layers."), heads, shapes[encoder + "layers.0.linear1.weight"][0]
        ),
        decoder=TransformerConfig(
            _count(shapes, decoder + "layers."), heads, shapes[decoder + "layers.0.linear1.weight"][0]
        ),
        queries=shapes[decoder + "query_embed.weight"][0],
        mask_heads=heads,
        mask_stages=_count(shapes, "segmentation_head.pixel_decoder.conv_layers."),
    )


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """Count the numbered submodules under ``prefix``."""
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})
