"""Open weight files so that tensors can be read one at a time: ``.safetensors``, its shards, and ``.pt``."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from s3seg.errors import CheckpointError
from s3seg.sam3.foreign_files import describe_content, describe_pickle_error


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open checkpoint whose tensors are read on demand."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    """Shape by tensor name."""
    dtypes: Mapping[str, str]
    """Dtype by tensor name, as safetensors (``F32``) or torch (``torch.float32``) writes it."""
    read: Callable[[str], Tensor]
    """Read one tensor, by name."""


def open_weights(path: Path, stack: ExitStack) -> TensorFile:
    """Open a weight file; ``stack`` closes it.

    Args:
        path: A ``.safetensors`` file, the ``.index.json`` of its shards, or a ``.pt`` file. The latter is read with
            ``weights_only=True``, which runs no code from the file.
        stack: Closes the file.

    Raises:
        CheckpointError: The file is incomplete, or is something else than weights; the message says what.
    """
    if path.name.endswith(".index.json"):
        return _open_shards(path, stack)
    if what := describe_content(path):
        raise CheckpointError(f"{path} {what}")
    return _open_safetensors(path, stack) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path, stack: ExitStack) -> TensorFile:
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete safetensors file: {err}. Download it again."
        ) from err
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    return TensorFile(path, shapes, {name: part.get_dtype() for name, part in slices.items()}, file.get_tensor)


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
    shards = {name: open_weights(index.parent / name, stack) for name in names}
    lacking = [name for name, shard in weight_map.items() if name not in shards[shard].shapes]
    if lacking:
        raise CheckpointError(
            f"{index} lists tensors that its shards do not hold: {', '.join(lacking[:10])}. Download it again."
        )
    shapes = {name: shards[shard].shapes[name] for name, shard in weight_map.items()}
    dtypes = {name: shards[shard].dtypes[name] for name, shard in weight_map.items()}
    return TensorFile(index, shapes, dtypes, lambda name: shards[weight_map[name]].read(name))


def _open_pickle(path: Path) -> TensorFile:
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, BadZipFile) as err:
        if what := describe_pickle_error(err):
            raise CheckpointError(f"{path} {what}") from err
        reason = str(err).splitlines()[0] if str(err) else repr(err)
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete PyTorch checkpoint: {reason}. Download it again."
        ) from err
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds {type(content).__name__}, not a dictionary of tensors by name")
    tensors: dict[str, Tensor] = content
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    dtypes = {name: str(tensor.dtype) for name, tensor in tensors.items()}
    return TensorFile(path, shapes, dtypes, tensors.__getitem__)
