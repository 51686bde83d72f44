"""How a run starts from what an earlier one learned: weights, auxiliary heads, and momenta of the optimisers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from s3seg.sam3.load import load

from .shapes import COLOUR_NAMES, PATTERNS, SHAPES

LOOKS = len(SHAPES) + len(COLOUR_NAMES) + len(PATTERNS)


@dataclass(frozen=True)
class Parent:
    """What an earlier run knows.

    Attributes:
        weights: Of the network.
        tokenizer: Its tokenizer.
        boxes: Whether its geometry encoder has been trained.
        heads: Weights of the auxiliary heads; none if they were not kept.
        momenta: What the optimisers remember of each weight, "<name of the weight>/<name of the average>".
        concepts: The names of its concepts, in the order of the heads' rows.
    """

    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    boxes: bool
    heads: dict[str, Tensor]
    momenta: dict[str, Tensor]
    concepts: tuple[str, ...]


def open_parent(folder: Path, extras: Path | None = None) -> Parent:
    """Read a checkpoint.

    Args:
        folder: The checkpoint.
        extras: The file with heads and momenta that `save_extras` wrote beside it, if there is one.
    """
    config = json.loads((folder / "config.json").read_text())
    heads, momenta, concepts = {}, {}, ()
    if extras is not None:
        with safe_open(extras, "pt") as file:
            concepts = tuple(json.loads(file.metadata()["concepts"]))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
        heads = {n.removeprefix("heads."): t for n, t in tensors.items() if "/" not in n}
        momenta = {n: t for n, t in tensors.items() if "/" in n}
    return Parent(
        weights=load(folder).state_dict(), tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        boxes=bool(config.get("s3seg", {}).get("box_prompts")), heads=heads, momenta=momenta, concepts=concepts,
    )  # fmt: skip


def save_extras(file: Path, heads: dict[str, Tensor], momenta: dict[str, Tensor], concepts: tuple[str, ...]) -> None:
    """Write what growing from a checkpoint needs and using it does not, in bf16."""
    tensors = {f"heads.{name}": tensor for name, tensor in heads.items()} | momenta
    kept = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    save_file(kept, file, metadata={"concepts": json.dumps(concepts)})


@torch.no_grad()
def grow(new: dict[str, Tensor], parent: Parent) -> None:
    """Copy what a trained network knows into a new one, which may be larger.

    Tensors of equal shape are copied. Further ViT layers start as doing nothing; queries are interpolated on their
    grid, positions on theirs. The tokenizer is the parent's: new words are said with the tokens that there are.

    Args:
        new: The tensors of the new network, changed in place.
        parent: What to start from.
    """
    old = parent.weights
    for name, tensor in new.items():
        if name.startswith("geometry.") and not parent.boxes:
            continue
        if name in ("decoder.query_embedding", "decoder.reference_boxes"):
            tensor.copy_(_resize_square(old[name], len(tensor)))
        elif name == "vision.trunk.position_embedding":
            tensor.copy_(_resize_grid(old[name], len(tensor)))
        elif name in old and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
        elif ".trunk.layers." in name and name.endswith(
            ("attention.out.weight", "attention.out.bias", "fc2.weight", "fc2.bias")
        ):
            tensor.zero_()


@torch.no_grad()
def grow_heads(new: dict[str, Tensor], parent: Parent, concepts: tuple[str, ...]) -> None:
    """Copy auxiliary heads into new ones, changed in place; rows of concepts go by name, new concepts start afresh."""
    place = {name: i for i, name in enumerate(parent.concepts)}
    for name, tensor in new.items():
        old = parent.heads.get(name)
        if old is None:
            continue
        if name.startswith(("attributes.", "neck_concepts.")):
            rest = 2 + (LOOKS if name.startswith("attributes.") else 0)  # shape, background; shapes, colours, patterns
            if old.shape[1:] != tensor.shape[1:] or len(old) != len(place) + rest:
                continue
            tensor[len(concepts) :] = old[len(place) :]
            for row, concept in enumerate(concepts):
                if concept in place:
                    tensor[row] = old[place[concept]]
        elif old.shape == tensor.shape:
            tensor.copy_(old)


def _resize_square(rows: Tensor, count: int) -> Tensor:
    """(n * n, C) on a grid -> (m * m, C) by interpolation."""
    side = math.isqrt(len(rows))
    return _resize_grid(rows.unflatten(0, (side, side)), math.isqrt(count)).flatten(0, 1)


def _resize_grid(grid: Tensor, side: int) -> Tensor:
    if len(grid) == side:
        return grid
    planes = grid.permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size=(side, side), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0)
