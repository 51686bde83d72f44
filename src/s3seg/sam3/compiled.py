"""The forward passes compiled, and on CUDA recorded as graphs, for a few fixed shapes.

Compiling happens layer by layer, because the layers of a stack share one compiled function: the whole image encoder at
once takes minutes. What is left between the layers costs only launches, and those a CUDA graph does away with.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from s3seg.sam3 import positions
from s3seg.sam3.model import BoxPrompts, Constants, ImageFeatures, Prompt, Sam3
from s3seg.sam3.passes import Detected, Passes

TEXT_LENGTHS = (7, 15, 39)
"""Lengths of padded texts. With the CLS token they are multiples of 8, as fused attention wants them."""

INSTANCES = (8, 32)
"""Numbers of masks for each prompt; beyond the last, masks of all queries are made."""

MAX_PROMPTS = 8
"""The most prompts in one pass."""

RECORDED = "cuda"
"""The type of device that can record what it does."""

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
        self._encode = Graphs(self._encode_flat)
        self._detect = Graphs(self._detect_flat)
        self._masks = Graphs(self._masks_flat)

    def rows(self, count: int) -> int:
        """Return the next power of two."""
        return 1 << (count - 1).bit_length()

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
        coarse, tokens, *others = self._encode(pixels)
        patches = None if self.model.clicks is None else others.pop()
        return ImageFeatures(coarse, tokens, tuple(others), patches)

    def detect(self, image: ImageFeatures, text: Tensor, valid: Tensor | None, boxes: BoxPrompts | None) -> Detected:
        """Predict everything but masks. Passes with boxes are compiled, but not recorded: their shapes are many."""
        if boxes is not None or valid is None:
            return super().detect(image, text, valid, boxes)
        encoded, tokens, real, queries, packed = self._detect(text, valid, *_parts(image))
        return Detected(encoded, Prompt(tokens, real), queries, packed)

    def masks(self, image: ImageFeatures, detected: Detected, instances: int) -> Tensor:
        """Compute mask logits of the best instances of each prompt: fp32 (P, instances, 4h, 4w)."""
        prompt = detected.prompt
        if prompt.valid is None:
            return super().masks(image, detected, instances)
        queries = detected.queries[:, :instances]
        return self._masks(queries, detected.encoded, prompt.tokens, prompt.valid, *_parts(image))[0]

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


class Graphs:
    """A function of tensors, recorded once for each combination of shapes as a CUDA graph and then replayed.

    On other devices it is just called. Safe to share between threads that use the same stream.

    Args:
        function: Takes tensors of one device and returns tensors; launches the same work for the same shapes, and
            does not wait for the device.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._recorded: dict[tuple[Any, ...], _Graph] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the function. The results are the caller's: the next call does not overwrite them."""
        if inputs[0].device.type != RECORDED:
            return self._function(*inputs)
        key = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        with self._lock:
            if key not in self._recorded:
                self._recorded[key] = _Graph(self._function, inputs)
            return self._recorded[key].replay(inputs)


class _Graph:
    """One recording: inputs and outputs at fixed addresses, and the kernels between them."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        stream = _recording_stream(inputs[0].device)
        stream.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and lets libraries choose kernels and take their workspaces
                function(*self._inputs)
        torch.cuda.current_stream(inputs[0].device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


@functools.cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for all recordings on a device: libraries keep a workspace for every stream."""
    return torch.cuda.Stream(device)


def _parts(image: ImageFeatures) -> tuple[Tensor, ...]:
    return image.coarse, image.tokens, *image.laterals


def _features(parts: tuple[Tensor, ...]) -> ImageFeatures:
    coarse, tokens, *laterals = parts
    return ImageFeatures(coarse, tokens, tuple(laterals))
