"""How to make a tensor of our model from the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Concat:
    """Our tensor is three tensors of the file, concatenated along the first dimension (separate q, k and v)."""

    names: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Our tensor is one of three equal chunks of a tensor of the file, along the first dimension (fused q, k, v)."""

    name: str
    index: int


@dataclass(frozen=True, slots=True)
class PositionGrid:
    """Our position embedding (side, side, width) is stored as (1, cls_rows + side * side, width)."""

    name: str
    cls_rows: int


@dataclass(frozen=True, slots=True)
class Computed:
    """Our tensor is computed from several tensors of the file."""

    names: tuple[str, ...]
    compute: Callable[..., Tensor]
    """Our tensor from those named, in this order and in fp32."""
    shapes: Callable[[tuple[int, ...]], tuple[tuple[int, ...], ...]]
    """The shape that each named tensor must have, from the shape of ours."""


TensorSource = str | Concat | Chunk | PositionGrid | Computed
"""How to make one of our tensors from a file: a plain ``str`` is a tensor that is used as it is."""


def required_tensors(source: TensorSource, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the names of the tensors that a source reads, with the shape that each must have.

    Args:
        source: A source.
        shape: The shape of our tensor.
    """
    match source:
        case Concat(names):
            return dict.fromkeys(names, (shape[0] // 3, *shape[1:]))
        case Chunk(name, _):
            return {name: (shape[0] * 3, *shape[1:])}
        case PositionGrid(name, cls_rows):
            return {name: (1, shape[0] * shape[1] + cls_rows, shape[2])}
        case Computed(names):
            return dict(zip(names, source.shapes(shape), strict=True))
        case str():
            return {source: shape}


def read_source(source: TensorSource, shape: tuple[int, ...], read: Callable[[str], Tensor]) -> Tensor:
    """Make one of our tensors from a file.

    Args:
        source: The source of the tensor.
        shape: Its shape, which the file has been checked for; see `required_tensors`.
        read: Reads a tensor of the file by name.
    """
    match source:
        case Concat(names):
            return torch.cat([read(name) for name in names])
        case Chunk(name, index):
            return read(name).chunk(3)[index]
        case PositionGrid(name, cls_rows):
            return read(name)[0, cls_rows:].reshape(shape)
        case Computed(names):
            return source.compute(*(read(name).float() for name in names))
        case str():
            return read(source)


def complete(source: TensorSource, number: str, suffix: str) -> TensorSource:
    """Fill in the layer number for ``*`` in a source's names, and append ``weight`` or ``bias``."""

    def name(template: str) -> str:
        separator = "" if not suffix or template.endswith("_") else "."
        return template.replace("*", number) + separator + suffix

    match source:
        case Concat(names):
            q, k, v = map(name, names)
            return Concat((q, k, v))
        case Chunk(template, index):
            return Chunk(name(template), index)
        case PositionGrid(template, cls_rows):
            return PositionGrid(name(template), cls_rows)
        case Computed(names):
            return replace(source, names=tuple(map(name, names)))
        case str():
            return name(source)
