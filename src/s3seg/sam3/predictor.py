"""`Predictor`: SAM 3 with arrays and prompts as input and arrays as output."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor
from torch.nn import functional as F

from s3seg.checkpoints.weight_files import find_weights
from s3seg.errors import CheckpointError, InferenceError, InvalidRequestError, OutOfMemoryError
from s3seg.results.masks import RLE
from s3seg.sam3 import postprocess
from s3seg.sam3.choices import choose_compile, choose_device, choose_dtype
from s3seg.sam3.click_predictor import ClickedMasks, ClickPredictor, ClickQuery
from s3seg.sam3.device import DeviceStatus, device_status, free_cached_memory, prepare
from s3seg.sam3.fingerprint import fingerprint
from s3seg.sam3.graphs import RECORDED
from s3seg.sam3.load import load
from s3seg.sam3.model import BoxPrompts, ImageFeatures, Sam3
from s3seg.sam3.passes import Detected, Passes
from s3seg.sam3.resize import resize
from s3seg.sam3.tokenizer import Tokenizer
from s3seg.sam3.transfers import HostCopies, rows_to_device, to_device

_TOKENS_AT_ONCE = 65_536  # image tokens of all prompts that are decoded together: 12 prompts at full size
_TOKENS_AT_ONCE_CPU = 4_096  # beyond this, mapping fresh memory takes longer than one prompt after the other
_MAX_CACHED_TEXTS = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """A box prompt: an example of what to find, or of what not to find."""

    cxcywh: tuple[float, float, float, float]
    """Centre, width and height, normalised to the image, 0..1."""
    positive: bool
    """Whether it shows what to find."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One prompt: words, boxes, or both. For boxes without words the text is ``visual``, as in the reference."""

    text: str
    boxes: tuple[BoxPrompt, ...] = ()
    examples: np.ndarray | None = None
    """float32 (K, C): tokens of what was shown on other images; see `Predictor.encode_examples`."""


@dataclass(frozen=True, slots=True)
class Detections:
    """The instances that the network predicted for one query in one image, the highest score first."""

    scores: np.ndarray
    """float32 (N,), 0..1."""
    boxes_xyxy: np.ndarray
    """float32 (N, 4), normalised to the image, 0..1."""
    mask_logits: Tensor
    """fp32 (N, h, w), in the host's memory; h and w are 4 times the patch grid. See `copies`."""
    presence: float
    """The probability that the image shows the concept at all, 0..1."""
    copies: HostCopies | None = None
    """What brings the logits from the device. Until it has been waited for, as `rles` and `complete` do, they cannot
    be read."""

    def rles(self, size: tuple[int, int]) -> tuple[RLE, ...]:
        """Make the masks at the size (height, width) of the image. Waits for the logits; may run on any thread."""
        return tuple(postprocess.encode(logits, size) for logits in self.complete().mask_logits.numpy())

    def complete(self) -> Detections:
        """Wait until the logits are in the host's memory."""
        if self.copies is None:
            return self
        with _stage("mask"):
            self.copies.wait()
        return replace(self, copies=None)


class Predictor:
    """A loaded SAM 3 with its tokenizer. Safe to share between threads.

    Args:
        model: The network.
        tokenizer: Of the same checkpoint.
        max_cached_texts: Encoded prompts to keep; the least recently used are dropped first.
    """

    def __init__(self, model: Sam3, tokenizer: Tokenizer, *, max_cached_texts: int = _MAX_CACHED_TEXTS) -> None:
        self.model = model
        self.tokenizer = tokenizer
        side = self.image_size // model.config.vision.patch_size
        with torch.inference_mode():
            self._passes = Passes(model, model.constants((side, side)))
        self._clicks = None if model.clicks is None else ClickPredictor(model.clicks)
        self._texts: LRUCache[str, Tensor] = LRUCache(max_cached_texts)
        self._texts_lock = threading.Lock()

    @classmethod
    def from_path(
        cls,
        path: Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
        compile: bool | None = None,
    ) -> Predictor:
        """Load a checkpoint folder or weight file.

        Args:
            path: A checkpoint folder, or a weight file; see :func:`s3seg.sam3.load.load`.
            device: A torch device, or "auto": CUDA, else MPS, else the CPU.
            dtype: One of :data:`s3seg.sam3.choices.DTYPES`, or "auto"; see :func:`s3seg.sam3.choices.choose_dtype`.
            image_size: Side of the network's input in pixels; None takes the checkpoint's own.
            compile: True compiles the network, which takes minutes the first time; False runs it as it is; None takes
                ``S3SEG_COMPILE`` if it is set, and otherwise only records CUDA graphs. See `s3seg.sam3.compiled`.

        Raises:
            CheckpointError: The weights cannot be loaded, or the tokenizer is missing or of another model.
            InvalidRequestError: The device or precision is not available, or the image size is not supported.
        """
        where = choose_device(device)
        compile = choose_compile(compile)
        precision = choose_dtype(dtype, where)
        prepare(where, precision)
        model = load(path, device=where, dtype=precision, image_size=image_size)
        folder = find_weights(path).parent
        tokenizer = Tokenizer.from_folder(folder, context=model.config.text.context)
        if (known := tokenizer.bpe.get_vocab_size()) > (embedded := model.config.text.vocab_size):
            raise CheckpointError(
                f"the tokenizer in {folder} is of another model: it has {known} tokens, the weights {embedded}; "
                "use the tokenizer that came with the weights"
            )
        predictor = cls(model, tokenizer)
        if compile:
            predictor.compile()
        elif compile is None and where.type == RECORDED:
            predictor.record()
        return predictor

    @torch.inference_mode()
    def record(self) -> None:
        """Record CUDA graphs from now on, each when its shapes are first seen; nothing is compiled."""
        from s3seg.sam3.compiled import CompiledPasses

        with _stage("recorded"):
            self._passes = CompiledPasses(self.model, self._passes.constants, backend=None)

    @torch.inference_mode()
    def compile(self, *, backend: str = "inductor") -> None:
        """Compile the network for its most common shapes. Not while other threads use it.

        Args:
            backend: The compiler, as for `torch.compile`.

        Raises:
            InferenceError: It cannot be compiled here, for example because there is no C++ compiler.
        """
        from s3seg.sam3.compiled import CompiledPasses

        with _stage("compiled"):
            passes = CompiledPasses(self.model, self._passes.constants, backend=backend)
            passes.warm()
        self._passes = passes

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.model.vision.trunk.patch_embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights (a few layers keep float32)."""
        return self.model.vision.trunk.patch_embed.weight.dtype

    @property
    def image_size(self) -> int:
        """The side of the network's square input, in pixels."""
        return self.model.config.vision.image_size

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def weights_bytes(self) -> int:
        """The size of the weights in the device's memory."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def device_status(self) -> DeviceStatus:
        """Ask the device for its name and memory. May be called from any thread."""
        return device_status(self.device)

    def free_cached_memory(self) -> None:
        """Release device memory that recordings and PyTorch's allocator hold in reserve."""
        self._passes.forget()
        free_cached_memory(self.device)

    def close(self) -> None:
        """Drop the recordings; the rest of its memory is freed with it."""
        self._passes.forget()

    @property
    def problem(self) -> str | None:
        """Why it cannot compute at the moment: None. A predictor in another process may have a reason."""
        return None

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray]) -> list[ImageFeatures]:
        """Encode images in one forward pass: uint8 (H, W, 3) RGB of any sizes -> features of each."""
        return self.encode_resized([self.resize(image) for image in images])

    def resize(self, image: np.ndarray) -> Tensor:
        """Resize an image, uint8 (H, W, 3) RGB, to the network's input, uint8 (1, 3, side, side), on the CPU."""
        return resize(image, self.image_size)

    @torch.inference_mode()
    def encode_resized(self, resized: Sequence[Tensor]) -> list[ImageFeatures]:
        """Encode images that `resize` returned in one forward pass -> features of each."""
        with _stage("image"):
            count = self._passes.rows(len(resized))
            rows = [*resized, *[resized[-1]] * (count - len(resized))]
            features = self._passes.encode(rows_to_device(rows, self.device))
            return [features.copy(row) for row in range(len(resized))]  # keeping one does not keep the whole batch

    @torch.inference_mode()
    def encode_texts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Encode prompts as tokens (T, C) each; recently used prompts come from a cache.

        Raises:
            PromptError: A prompt is empty or too long.
        """
        ids = {prompt: self.tokenizer(prompt) for prompt in prompts}
        with self._texts_lock:
            known = {prompt: self._texts[prompt] for prompt in ids if prompt in self._texts}
        new = [prompt for prompt in ids if prompt not in known]
        if not new:
            return [known[prompt] for prompt in prompts]
        longest = max(len(ids[prompt]) for prompt in new)
        padded = torch.tensor([ids[prompt] + [0] * (longest - len(ids[prompt])) for prompt in new])
        with _stage("text"):
            encoded = self.model.encode_text(to_device(padded, self.device))
        fresh = {prompt: row[: len(ids[prompt])].clone() for prompt, row in zip(new, encoded, strict=True)}
        with self._texts_lock:
            self._texts.update(fresh)
        known |= fresh
        return [known[prompt] for prompt in prompts]

    @torch.inference_mode()
    def encode_examples(self, image: ImageFeatures, boxes: Sequence[BoxPrompt]) -> np.ndarray:
        """Encode what boxes show in an encoded image as tokens that can be used on other images.

        The geometry encoder's CLS token is left out: it says that the concept is in the image of the boxes, and on
        other images the network then finds it where it is not.

        Returns:
            float32 (len(boxes), C): one token for each box.
        """
        with _stage("prompt"):
            prompts = self._boxes([Query("", tuple(boxes))])
            if prompts is None:
                raise InvalidRequestError("an example needs at least one box")
            tokens, _ = self.model.examples(image, prompts)
        return tokens[0, :-1].float().cpu().numpy()

    @torch.inference_mode()
    def fingerprint(self) -> str:
        """Return a digest of the weights; it does not depend on their file, nor on the device."""
        return fingerprint(self.model.state_dict())

    def _with_examples(self, text: Tensor, query: Query) -> Tensor:
        """Append the tokens of examples to those of a text, (T, C) -> (T + K, C)."""
        if query.examples is None:
            return text
        return torch.cat([text, torch.from_numpy(query.examples).to(text.device, text.dtype)])

    @torch.inference_mode()
    def predict(
        self, image: ImageFeatures, queries: Sequence[Query], *, threshold: float, max_instances: int | None = None
    ) -> list[Detections]:
        """Predict the instances of each query in one encoded image.

        Args:
            image: As `encode_images` returns it.
            queries: Any number; they share forward passes.
            threshold: Keep instances that score above this, compared in float32.
            max_instances: Keep at most this many for each query, the best; None keeps all.

        Returns:
            One result for each query.

        Raises:
            PromptError: A prompt is empty or too long.
            InferenceError: The network failed, or computed values that are not finite.
        """
        return self.predict_pairs(
            [(image, query) for query in queries], threshold=threshold, max_instances=max_instances
        )

    @torch.inference_mode()
    def predict_pairs(
        self, pairs: Sequence[tuple[ImageFeatures, Query]], *, threshold: float, max_instances: int | None = None
    ) -> list[Detections]:
        """Predict the instances of each query in its own encoded image, all pairs together; see `predict`."""
        if not pairs:
            return []
        texts = self.encode_texts([query.text for _, query in pairs])
        texts = [self._with_examples(text, query) for text, (_, query) in zip(texts, pairs, strict=True)]
        at_once = self._at_once(pairs[0][0].grid)
        detections: list[Detections] = []
        for start in range(0, len(pairs), at_once):
            part = slice(start, start + at_once)
            images, queries = zip(*pairs[part], strict=True)
            with _stage("prompt"):
                detections += self._decode(images, queries, texts[part], threshold, max_instances)
        return detections

    def encoded_bytes(self, image: ImageFeatures) -> int:
        """Return the memory that an encoded image takes, with what its first click adds: `ClickFeatures`."""
        return image.nbytes + (5 * image.coarse.nbytes if self.has_clicks else 0)

    @property
    def has_clicks(self) -> bool:
        """Whether the checkpoint has a click head."""
        return self._clicks is not None

    def click(
        self, image: ImageFeatures, queries: Sequence[ClickQuery], *, alternatives: bool = False
    ) -> list[ClickedMasks]:
        """Predict the masks of objects in one encoded image; see `ClickPredictor.predict`.

        Raises:
            InvalidRequestError: The checkpoint has no click head.
            InferenceError: The network failed, or computed values that are not finite.
        """
        if self._clicks is None:
            raise InvalidRequestError("the checkpoint has no click head")
        with _stage("click"):
            return self._clicks.predict(image, queries, alternatives=alternatives)

    def _at_once(self, grid: tuple[int, int]) -> int:
        """How many prompts are decoded together."""
        tokens = _TOKENS_AT_ONCE_CPU if self.device.type == "cpu" else _TOKENS_AT_ONCE
        most = max(1, tokens // math.prod(grid))
        return min(most, self._passes.max_prompts or most)

    def _decode(
        self,
        images: Sequence[ImageFeatures],
        queries: Sequence[Query],
        texts: Sequence[Tensor],
        threshold: float,
        max_instances: int | None,
    ) -> list[Detections]:
        """Decode prompts together, and begin to copy their masks. The host waits for the device once, for the scores.

        Only then it is known which prompts need masks, and how many. Prompts that find nothing, which are most of the
        prompts of a service with a long list of them, skip the mask head.
        """
        passes = self._passes
        count = passes.rows(len(queries))
        images, queries = _repeat_last(images, count), _repeat_last(queries, count)
        text, valid = self._pad(_repeat_last(texts, count))
        found = passes.detect(_stack(images), text, valid, self._boxes(queries))
        packed = HostCopies([found.packed]).wait()[0].numpy()
        presence, scores, boxes = np.split(packed, [1, 1 + found.queries.shape[1]], axis=1)
        if not np.isfinite(presence).all():
            raise InferenceError(
                f"the network computed values that are not finite in {self.dtype}; load it with dtype 'float32'"
            )
        counts = (scores[:, :max_instances] > np.float32(threshold)).sum(1).tolist()
        masks, copies = self._masks(images, found, counts)
        empty = torch.zeros(0, *(4 * side for side in images[0].grid))
        return [
            Detections(
                scores=scores[row, :kept].copy(),
                boxes_xyxy=boxes[row].reshape(-1, 4)[:kept].copy(),
                mask_logits=masks.get(row, empty),
                presence=float(presence[row, 0]),
                copies=copies if row in masks else None,
            )
            for row, kept in enumerate(counts)
        ]

    def _masks(
        self, images: Sequence[ImageFeatures], found: Detected, counts: Sequence[int]
    ) -> tuple[dict[int, Tensor], HostCopies]:
        """Begin to make and copy the masks of the prompts that have instances, by their row."""
        rows = [row for row, kept in enumerate(counts) if kept]
        if not rows:
            return {}, HostCopies([])
        padded = _repeat_last(rows, self._passes.rows(len(rows)))
        if padded != list(range(len(images))):
            found = found.select(to_device(torch.tensor(padded), self.device))
        logits = self._passes.masks(_stack([images[row] for row in padded]), found, self._passes.instances(max(counts)))
        copies = HostCopies([one[: counts[row]] for row, one in zip(rows, logits, strict=False)])
        return dict(zip(rows, copies.tensors, strict=True)), copies

    def _pad(self, texts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Pad texts (T, C) -> (P, longest, C), and which tokens are real, bool (P, longest); None if all are."""
        lengths = [len(text) for text in texts]
        length = self._passes.tokens(max(lengths))
        if length is None and min(lengths) == max(lengths):
            return torch.stack(list(texts)), None
        length = length or max(lengths)
        padded = torch.stack([F.pad(text, (0, 0, 0, length - len(text))) for text in texts])
        valid = torch.arange(length) < torch.tensor(lengths)[:, None]
        return padded, to_device(valid, self.device)

    def _boxes(self, queries: Sequence[Query]) -> BoxPrompts | None:
        longest = max(len(query.boxes) for query in queries)
        if not longest:
            return None
        longest = self._passes.rows(longest)
        empty = BoxPrompt((0.5, 0.5, 1.0, 1.0), positive=False)
        padded = [[*query.boxes, *[empty] * (longest - len(query.boxes))] for query in queries]
        numbers = torch.tensor([[(*box.cxcywh, float(box.positive)) for box in row] for row in padded])
        valid = torch.arange(longest) < torch.tensor([[len(query.boxes)] for query in queries])
        numbers, valid = to_device(numbers, self.device), to_device(valid, self.device)
        return BoxPrompts(numbers[..., :4], numbers[..., 4] > 0.5, valid)


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Turn errors of PyTorch into ours, which name the part of the network that failed."""
    try:
        yield
    except torch.OutOfMemoryError as err:
        raise OutOfMemoryError(f"out of memory in the {name} part of the network: {err}") from err
    except RuntimeError as err:
        raise InferenceError(f"the network failed in its {name} part: {err}") from err


def _stack(images: Sequence[ImageFeatures]) -> ImageFeatures:
    """Stack features, one row for each image; if all are the same image, it is returned as it is."""
    if all(image is images[0] for image in images):
        return images[0]
    return ImageFeatures(
        torch.cat([image.coarse for image in images]),
        torch.cat([image.tokens for image in images]),
        tuple(torch.cat(maps) for maps in zip(*(image.laterals for image in images), strict=True)),
    )


def _repeat_last(values: Sequence[T], count: int) -> list[T]:
    return [*values, *[values[-1]] * (count - len(values))]
