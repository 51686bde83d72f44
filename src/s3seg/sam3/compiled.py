"""The forward passes compiled, and on CUDA recorded as graphs, for a few fixed shapes.

Compiling happens layer by layer, because the layers of a stack share one compiled function: the whole image encoder at
once takes minutes. What is left between the layers costs only launches, and those a CUDA graph does away with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from s3seg.sam3 import kernels, positions
from s3seg.sam3.graphs import Graphs
from s3seg.sam3.model import BoxPrompts, Constants, ImageFeatures, Prompt, Sam3
from s3seg.sam3.passes import Detected, Passes

TEXT_LENGTHS = (7, 15, 39)
"""Lengths of padded texts. With the CLS token they are multiples of 8, as fused attention wants them."""

INSTANCES = (8, 32)
"""Numbers of masks for each prompt; beyond the last, masks of all queries are made."""

MAX_PROMPTS = 8
"""The most prompts in one pass."""

_ROWS = (1, 2, 3, 4, 6, 8, 12, 16)  # of passes that are only recorded, which is quick

_SHAPES_OF_A_LAYER = 64  # that are compiled before PyTorch falls back to running it uncompiled; its own limit is 8


class CompiledPasses(Passes):
    """Forward passes over 1, 2, 4, ... images or prompts with padded texts, whose layers are compiled.

    The layers of the model itself are replaced. A shape is compiled when it is first seen; `warm` does so for the most
    common ones.

    Args:
        model: The network.
        constants: Of the network, for the patch grid of its image size.
        backend: The compiler, as for `torch.compile`; None leaves the layers as they are, and only records them.
    """

    max_prompts = MAX_PROMPTS

    def __init__(self, model: Sam3, constants: Constants, *, backend: str | None = "inductor") -> None:
        super().__init__(model, constants)
        if backend is not None:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))
            compile_layers(model, backend=backend)
        self._compiled = backend is not None
        self._cls = int(model.config.cls_on_text_prompts)
        self._graphs = Graphs()
        choose_attention(model, constants)

    def rows(self, count: int) -> int:
        """Return the next power of two; if nothing is compiled, the next of more numbers."""
        power = 1 << (count - 1).bit_length()
        return power if self._compiled else next((number for number in _ROWS if number >= count), power)

    def tokens(self, count: int) -> int:
        """Return the next of `TEXT_LENGTHS`."""
        return next((length for length in TEXT_LENGTHS if length >= count), count)

    def instances(self, count: int) -> int:
        """Return the next of `INSTANCES`, or the number of queries."""
        return next((number for number in INSTANCES if number >= count), self.model.config.queries)

    def warm(self) -> None:
        """Compile the most common shapes: one image; one prompt and the most of them at once; a few instances."""
        parameter = self.model.vision.trunk.patch_embed.weight
        side, channels = self.model.config.vision.image_size, self.model.config.channels
        image = self.encode(torch.zeros((1, 3, side, side), dtype=torch.uint8, device=parameter.device))
        for prompts in (1, MAX_PROMPTS):
            text = torch.zeros((prompts, TEXT_LENGTHS[0], channels), dtype=parameter.dtype, device=parameter.device)
            valid = torch.ones(text.shape[:2], dtype=torch.bool, device=parameter.device)
            self.masks(image, self.detect(image, text, valid, None), INSTANCES[0])

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Encode images: uint8 (B, 3, side, side)."""
        coarse, tokens, *others = self._graphs(self._encode_flat, pixels)
        patches = None if self.model.clicks is None else others.pop()
        return ImageFeatures(coarse, tokens, tuple(others), patches)

    def detect(self, image: ImageFeatures, text: Tensor, valid: Tensor | None, boxes: BoxPrompts | None) -> Detected:
        """Predict everything but masks. Passes with boxes are compiled, but not recorded: their shapes are many."""
        if boxes is not None or valid is None:
            return super().detect(image, text, valid, boxes)
        constant = (image.coarse, image.tokens)
        encoded, tokens, real, queries, packed = self._graphs(self._detect_flat, text, valid, constant=constant)
        return Detected(encoded, Prompt(tokens, real), queries, packed)

    def masks(self, image: ImageFeatures, detected: Detected, instances: int) -> Tensor:
        """Compute mask logits of the best instances of each prompt: fp32 (P, instances, 4h, 4w)."""
        prompt = detected.prompt
        if prompt.valid is None or prompt.tokens.shape[1] - self._cls not in TEXT_LENGTHS:
            return super().masks(image, detected, instances)
        given = (detected.queries[:, :instances], detected.encoded, prompt.tokens, prompt.valid)
        return self._graphs(self._masks_flat, *given, constant=_parts(image))[0]

    def forget(self) -> None:
        """Drop the recordings, to give back their memory."""
        self._graphs.forget()

    def _encode_flat(self, pixels: Tensor) -> tuple[Tensor, ...]:
        image = super().encode(pixels)
        return _parts(image) if image.patches is None else (*_parts(image), image.patches)

    def _detect_flat(self, text: Tensor, valid: Tensor, *image: Tensor) -> tuple[Tensor, ...]:
        found = super().detect(_features(image), text, valid, None)
        real = cast("Tensor", found.prompt.valid)  # as ``valid`` is given
        return found.encoded, found.prompt.tokens, real, found.queries, found.packed

    def _masks_flat(
        self, queries: Tensor, encoded: Tensor, tokens: Tensor, valid: Tensor, *image: Tensor
    ) -> tuple[Tensor, ...]:
        detected = Detected(encoded, Prompt(tokens, valid), queries, queries)
        return (super().masks(_features(image), detected, queries.shape[1]),)


def cache_folder() -> Path:
    """Return where compiled code is kept between processes, unless ``TORCHINDUCTOR_CACHE_DIR`` says otherwise.

    PyTorch's own choice is the folder of temporary files, which a restart empties.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3seg" / "compiled"


def compile_layers(model: Sam3, *, backend: str) -> None:
    """Replace the layers of a model, and the mask head, by compiled ones. A layer with a graph break is an error."""
    import torch._dynamo

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, max(_SHAPES_OF_A_LAYER, getattr(torch._dynamo.config, limit)))
    for table in (positions.rotary_table, positions.encode_grid):
        torch.compiler.assume_constant_result(table)  # made once, not in every layer
    for owner, name in compiled_methods(model):
        setattr(owner, name, torch.compile(getattr(owner, name), backend=backend, fullgraph=True, dynamic=False))


@torch.inference_mode()
def choose_attention(model: Sam3, constants: Constants) -> None:
    """Use cuDNN's attention where it is faster, and where the number of rows alone decides the shapes.

    It makes a plan for every shape, which takes up to half a second, so the other attentions stay as they are. It was
    faster on Hopper (capability 9.0) at the size of full SAM 3, which is where it is used.
    """
    weight, vision = model.vision.trunk.patch_embed.weight, model.config.vision
    grid = vision.image_size // vision.patch_size
    if not _cudnn_pays(weight.device, weight.dtype, grid * grid):
        return
    bias, channels = constants.decoder_state.attention_bias, model.config.channels
    windows = (-(-grid // vision.window)) ** 2

    def split(rows: int, count: int, heads: int, width: int) -> Tensor:
        return torch.randn(rows, count, heads, width, device=weight.device, dtype=weight.dtype).transpose(1, 2)

    image = split(1, grid * grid, vision.heads, vision.width // vision.heads)
    inside = split(windows, vision.window**2, vision.heads, vision.width // vision.heads)
    if kernels.cudnn_takes(image, image, image) and kernels.cudnn_takes(inside, inside, inside):
        for layer in model.vision.trunk.layers:
            layer.attention.cudnn = True
    heads = bias.shape[1]
    tokens = split(1, grid * grid, heads, channels // heads)
    queries = split(1, bias.shape[2], heads, channels // heads)
    if kernels.cudnn_takes(queries, tokens, tokens, bias[:1]):
        for layer in model.decoder.layers:
            layer.image_attention.cudnn = True
    if model.encoder.layers[0].self_attention.heads == heads and kernels.cudnn_takes(tokens, tokens, tokens):
        for layer in model.encoder.layers:
            layer.self_attention.cudnn = True


def _cudnn_pays(device: torch.device, dtype: torch.dtype, tokens: int) -> bool:
    is_half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and is_half and tokens >= 2048 and torch.cuda.get_device_capability(device) >= (9, 0)


def compiled_methods(model: Sam3) -> Iterable[tuple[nn.Module, str]]:
    """Yield what `compile_layers` compiles: modules, and names of their methods."""
    for layer in model.vision.trunk.layers:
        yield layer, "forward"
    yield model.vision.neck, "forward"
    for layer in model.encoder.layers:
        yield layer, "self_attend"
        yield layer, "cross_attend"
    yield model.decoder, "_encode_boxes"
    for layer in model.decoder.layers:
        yield layer, "self_attend"
        yield layer, "forward"
    yield model.mask_head, "embed_pixels"


def _parts(image: ImageFeatures) -> tuple[Tensor, ...]:
    return image.coarse, image.tokens, *image.laterals


def _features(parts: tuple[Tensor, ...]) -> ImageFeatures:
    coarse, tokens, *laterals = parts
    return ImageFeatures(coarse, tokens, tuple(laterals))
