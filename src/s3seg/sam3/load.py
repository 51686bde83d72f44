"""Load a SAM 3 checkpoint: memory-mapped, one tensor at a time, straight to its device and precision."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from s3seg.errors import CheckpointError, CheckpointNotFoundError, InvalidRequestError
from s3seg.sam3.config import Sam3Config
from s3seg.sam3.decoder import Decoder
from s3seg.sam3.layouts import LAYOUTS, REFERENCE, Layout
from s3seg.sam3.model import Sam3
from s3seg.sam3.sources import TensorSource, read_source, required_tensors

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "sam3.pt")
_FP32 = ("scoring.", *(f"decoder.{name}" for name in Decoder.FP32))


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open checkpoint whose tensors are read on demand."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    """Shape by tensor name."""
    read: Callable[[str], Tensor]
    """Read one tensor, by name."""


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    image_size: int | None = None,
) -> Sam3:
    """Load a SAM 3 for inference.

    Args:
        path: A weight file, or a folder that holds one of `WEIGHT_FILES`. A ``config.json`` in the same folder is
            read; weights in the reference layout can do without.
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
        source = _open(weights, stack)
        layout = _detect_layout(source.shapes)
        if layout is None:
            raise CheckpointError(
                f"{weights} is not a SAM 3: none of its {len(source.shapes)} tensors is a presence token under any "
                f"known name (the first tensor is {next(iter(source.shapes), None)!r})"
            )
        config = _config(weights, source, layout)
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
        in_file = layout.detector_names(source.shapes)
        state = {
            ours: read_source(found, wanted[ours], lambda name: source.read(in_file[name]))
            .to(device, torch.float32 if ours.startswith(_FP32) else dtype, copy=True)
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


def find_weights(path: Path) -> Path:
    """Return the weight file at a path: the path itself, or the first of `WEIGHT_FILES` in that folder.

    Raises:
        CheckpointNotFoundError: There is no such path, or the folder holds no weight file.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointNotFoundError(f"no checkpoint at {path}: no such file or folder")
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointNotFoundError(f"no checkpoint in {path}: the folder holds none of {', '.join(WEIGHT_FILES)}")


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
    in_file = layout.detector_names(names)
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


def _detect_layout(names: Mapping[str, tuple[int, ...]]) -> Layout | None:
    """Return the layout of a file with these names, or None if it is not a SAM 3."""
    return next((layout for layout in LAYOUTS if layout.contains(names)), None)


def _config(weights: Path, source: TensorFile, layout: Layout) -> Sam3Config:
    beside = weights.parent / "config.json"
    if beside.is_file():
        return Sam3Config.from_file(beside)
    if layout is REFERENCE:
        own = {name: source.shapes[full] for name, full in layout.detector_names(source.shapes).items()}
        try:
            return Sam3Config.from_reference_shapes(own)
        except CheckpointError as err:
            raise CheckpointError(f"{weights} is {err}") from err
    raise CheckpointNotFoundError(f"{weights} needs the config.json that was published with it, at {beside}")


def _open(weights: Path, stack: ExitStack) -> TensorFile:
    if weights.name.endswith(".index.json"):
        return _open_shards(weights, stack)
    if weights.suffix == ".safetensors":
        return _open_safetensors(weights, stack)
    return _open_pickle(weights)


def _open_safetensors(path: Path, stack: ExitStack) -> TensorFile:
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete safetensors file: {err}. Download it again."
        ) from err
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return TensorFile(path, shapes, file.get_tensor)


def _open_shards(index: Path, stack: ExitStack) -> TensorFile:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        weight_map = {name: str(shard) for name, shard in content["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{index} is not an index of safetensors shards: {err!r}") from err
    names = sorted(set(weight_map.values()))
    absent = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index} lists shards that are not in its folder: {', '.join(absent)}. Download them again."
        )
    shards = {name: _open_safetensors(index.parent / name, stack) for name in names}
    lacking = [name for name, shard in weight_map.items() if name not in shards[shard].shapes]
    if lacking:
        raise CheckpointError(
            f"{index} lists tensors that its shards do not hold: {', '.join(lacking[:10])}. Download it again."
        )
    shapes = {name: shards[shard].shapes[name] for name, shard in weight_map.items()}
    return TensorFile(index, shapes, lambda name: shards[weight_map[name]].read(name))


def _open_pickle(path: Path) -> TensorFile:
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, BadZipFile) as err:
        reason = str(err).splitlines()[0] if str(err) else repr(err)
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete PyTorch checkpoint of plain tensors: {reason}"
        ) from err
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds {type(content).__name__}, not a dictionary of tensors by name")
    tensors: dict[str, Tensor] = content
    return TensorFile(path, {name: tuple(t.shape) for name, t in tensors.items()}, tensors.__getitem__)
