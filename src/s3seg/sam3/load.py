"""Load a SAM 3 checkpoint: memory-mapped, one tensor at a time, straight to its device and precision.

On a CPU, tensors that have the right precision in the file are not copied: they are the mapped file, which the system
reads when they are first used and shares between processes. See docs/adr/0106-a-short-start.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from s3seg.checkpoints.weight_files import find_weights
from s3seg.errors import CheckpointError, CheckpointNotFoundError, InvalidRequestError
from s3seg.sam3.click_prompts import ClickEncoder
from s3seg.sam3.config import ClickConfig, LiteTextConfig, Sam3Config, names_supported_model
from s3seg.sam3.decoder import Decoder
from s3seg.sam3.foreign_files import describe_dtypes, describe_names
from s3seg.sam3.layouts import Layout
from s3seg.sam3.model import Sam3
from s3seg.sam3.reference_layouts import REFERENCE, REFERENCE_31
from s3seg.sam3.sources import TensorSource, read_source, required_tensors
from s3seg.sam3.tensor_files import TensorFile, open_weights
from s3seg.sam3.transformers_layouts import TRANSFORMERS, TRANSFORMERS_LITE_TEXT

LAYOUTS = (TRANSFORMERS_LITE_TEXT, TRANSFORMERS, REFERENCE_31, REFERENCE)
"""All layouts, in the order in which they are to be tried."""

_FP32 = (
    "scoring.",
    *(f"decoder.{name}" for name in Decoder.FP32),
    *(f"clicks.prompts.{name}" for name in ClickEncoder.FP32),
)


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    image_size: int | None = None,
) -> Sam3:
    """Load a SAM 3 for inference.

    Args:
        path: A weight file, or a folder with one; see `find_weights`. A ``config.json`` in the same folder is read;
            weights in the reference layout can do without. While the model is in use, the file may be replaced by
            another or removed, but not written to.
        device: Device of the weights.
        dtype: Precision of the weights. Those that compute boxes, scores and presence are fp32 whatever it is.
        image_size: Side of the network's input in pixels, a multiple of the patch size. None uses the
            checkpoint's own size.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointNotFoundError: There are no weights at ``path``.
        CheckpointError: The file is incomplete or is not a SAM 3, or its tensors do not match its configuration;
            all missing and unexpected tensors are listed.
        InvalidRequestError: ``image_size`` is not a positive multiple of the patch size.
    """
    weights = find_weights(Path(path))
    with ExitStack() as stack:
        source = open_weights(weights, stack)
        layout = _detect_layout(source)
        config = _with_click_head(_config(weights, source, layout), source, layout)
        if image_size is not None:
            if image_size < 1 or image_size % config.vision.patch_size:
                raise InvalidRequestError(
                    f"image_size must be a positive multiple of the patch size {config.vision.patch_size}, "
                    f"not {image_size}"
                )
            config = replace(config, vision=replace(config.vision, image_size=image_size))
        try:
            model = empty_model(config)
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as err:
            raise CheckpointError(f"the configuration of {weights} does not describe a valid network: {err}") from err
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        plan = plan_loading(source.shapes, layout, wanted, path=weights)
        in_file = layout.own_names(source.shapes)
        state = {
            ours: read_source(found, wanted[ours], lambda name: source.read(in_file[name]))
            .to(device, torch.float32 if ours.startswith(_FP32) else dtype)
            .contiguous()
            for ours, found in plan.items()
        }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def empty_model(config: Sam3Config) -> Sam3:
    """Build a SAM 3 on the meta device: its tensors have shapes and no memory."""
    with torch.device("meta"), _NoInitialisation():
        return Sam3(config)


class _NoInitialisation(TorchFunctionMode):
    """Skip weight initialization: on meta tensors it computes nothing, and it imports torch's compiler (2 s)."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def plan_loading(
    names: Mapping[str, tuple[int, ...]], layout: Layout, wanted: Mapping[str, tuple[int, ...]], *, path: Path
) -> dict[str, TensorSource]:
    """Find each of our tensors in a file, and check that the file holds exactly what the model needs.

    Args:
        names: Shape by name of the tensors in the file.
        layout: The layout of these names.
        wanted: Shape by name of every tensor of the model.
        path: The file, for error messages.

    Returns:
        The source of each tensor by our name. Names in a source are without the layout's prefix.

    Raises:
        CheckpointError: Tensors are missing, unexpected, or have the wrong shape; all of them are listed.
    """
    in_file = layout.own_names(names)
    unexpected = {name for name in in_file if not layout.is_unused(name)}
    plan: dict[str, TensorSource] = {}
    problems: list[str] = []
    for ours, shape in wanted.items():
        source = layout.source(ours)
        parts = required_tensors(source, shape)
        unexpected.difference_update(parts)
        for part, part_shape in parts.items():
            if part not in in_file:
                problems.append(f"missing {part} {list(part_shape)}")
            elif names[in_file[part]] != part_shape:
                problems.append(f"{in_file[part]} has shape {list(names[in_file[part]])}, not {list(part_shape)}")
        plan[ours] = source
    problems = sorted(set(problems)) + [f"unexpected {in_file[name]}" for name in sorted(unexpected)]
    if problems:
        shown = "\n  ".join(problems[:40])
        more = f"\n  and {len(problems) - 40} more" if len(problems) > 40 else ""
        raise CheckpointError(
            f"{path} does not fit its configuration ({layout.name} layout); {len(problems)} tensors do not match:"
            f"\n  {shown}{more}"
        )
    return plan


def _detect_layout(source: TensorFile) -> Layout:
    """Return the layout of a file.

    Raises:
        CheckpointError: It is not a SAM 3, or one that is not supported.
    """
    if what := describe_names(source.shapes):
        raise CheckpointError(f"{source.path} {what}")
    layout = next((layout for layout in LAYOUTS if layout.contains(source.shapes)), None)
    if layout is None:
        raise CheckpointError(
            f"{source.path} is not a SAM 3: none of its {len(source.shapes)} tensors is a presence token under any "
            f"known name (the first tensor is {next(iter(source.shapes), None)!r})"
        )
    if what := describe_dtypes(source.dtypes[name] for name in layout.own_names(source.shapes).values()):
        raise CheckpointError(f"{source.path} {what}")
    return layout


def _config(weights: Path, source: TensorFile, layout: Layout) -> Sam3Config:
    beside = weights.parent / "config.json"
    # The reference layout needs no configuration, and is published beside configurations of other kinds.
    if beside.is_file() and (not layout.infers_config or names_supported_model(beside)):
        config = Sam3Config.from_file(beside)
        if isinstance(config.text, LiteTextConfig) != (layout is TRANSFORMERS_LITE_TEXT):
            raise CheckpointError(
                f"{weights} and {beside} do not belong together: only one of them is of a model with a light text "
                "encoder (model_type 'sam3_lite_text'). Use the config.json that was published with the weights."
            )
        return config
    if layout.infers_config:
        own = {name: source.shapes[full] for name, full in layout.own_names(source.shapes).items()}
        try:
            return Sam3Config.from_reference_shapes(own)
        except CheckpointError as err:
            raise CheckpointError(f"{weights} is {err}") from err
    raise CheckpointNotFoundError(f"{weights} needs the config.json that was published with it, at {beside}")


def _with_click_head(config: Sam3Config, source: TensorFile, layout: Layout) -> Sam3Config:
    """Return the configuration with a click head if the file has one, and without one if it has none."""
    if not layout.has_clicks(source.shapes):
        return replace(config, clicks=None)
    if not layout.infers_config:
        return replace(config, clicks=config.clicks or ClickConfig())
    model = empty_model(replace(config, clicks=ClickConfig()))
    own = layout.own_names(source.shapes)
    return replace(
        config,
        clicks=ClickConfig.from_shapes(
            {
                ours: source.shapes[own[name]]
                for ours in model.state_dict()
                if ours.startswith("clicks.") and isinstance(name := layout.source(ours), str) and name in own
            },
            channels=config.channels,
            heads=config.decoder.heads,
        ),
    )
