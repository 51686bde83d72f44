"""SAM 3 for people: arrays and words in, arrays out. The only door between the network and the rest of s3seg."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.errors import CheckpointError, InferenceError, InvalidRequestError, OutOfMemoryError
from s3seg.results.masks import RLE
from s3seg.sam3 import postprocess as mask_logits
from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.load import find_weights, load
from s3seg.sam3.model import BoxPrompts, ImageFeatures, Sam3
from s3seg.sam3.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_TOKENS_AT_ONCE = 65_536  # image tokens of all prompts that are decoded together: 12 prompts at full size
_TEXTS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class BoxPrompt:
    """A box in the image that shows what is meant, or what is not."""

    cxcywh: tuple[float, float, float, float]
    """Normalised to the image, 0..1."""
    positive: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One prompt: words, boxes, or both. Boxes without words go with the word ``visual``, as in the reference."""

    text: str
    boxes: tuple[BoxPrompt, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What one prompt found in one image, best first."""

    scores: np.ndarray
    """float32 (N,), 0..1."""
    boxes_xyxy: np.ndarray
    """float32 (N, 4), normalised to the image, 0..1."""
    mask_logits: Tensor
    """fp32 (N, h, w); h and w are 4 times the patch grid."""
    presence: float
    """0..1"""

    def rles(self, size: tuple[int, int]) -> tuple[RLE, ...]:
        """The masks at the image's size (height, width)."""
        return tuple(mask_logits.encode(logits, size) for logits in self.mask_logits.cpu().numpy())

    def on_cpu(self) -> Found:
        """The same, with its logits in the CPU's memory: masks are then made without the accelerator."""
        return replace(self, mask_logits=self.mask_logits.cpu())


class Predictor:
    """A loaded SAM 3 with its tokenizer. Safe to share between threads."""

    def __init__(self, model: Sam3, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        side = self.image_size // model.config.vision.patch_size
        with torch.inference_mode():
            self._constants = model.constants((side, side))
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._texts_lock = threading.Lock()

    @classmethod
    def from_path(
        cls, path: Path, *, device: str = "auto", dtype: str = "auto", image_size: int | None = None
    ) -> Predictor:
        """Load a checkpoint folder or weight file.

        Args:
            path: See :func:`s3seg.sam3.load.load`.
            device: A torch device, or "auto": CUDA, else MPS, else the CPU.
            dtype: One of :data:`DTYPES`, or "auto": bfloat16 on CUDA, else float32.
            image_size: Side of the network's input in pixels; None takes the checkpoint's own.

        Raises:
            CheckpointError: See :func:`s3seg.sam3.load.load`; or the tokenizer is missing, or of another model.
            InvalidRequestError: There is no such device or precision here, or the image size is none.
        """
        where = choose_device(device)
        model = load(path, device=where, dtype=choose_dtype(dtype, where), image_size=image_size)
        folder = find_weights(path).parent
        tokenizer = Tokenizer.from_folder(folder, context=model.config.text.context)
        if (known := tokenizer.bpe.get_vocab_size()) > (embedded := model.config.text.vocab_size):
            raise CheckpointError(
                f"the tokenizer in {folder} is of another model: it has {known} tokens, the weights know {embedded}"
            )
        return cls(model, tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.vision.trunk.patch_embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of most weights."""
        return self.model.vision.trunk.patch_embed.weight.dtype

    @property
    def image_size(self) -> int:
        """Side of the network's input, in pixels."""
        return self.model.config.vision.image_size

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def weights_bytes(self) -> int:
        """What the weights take in the device's memory."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray]) -> list[ImageFeatures]:
        """Encode images together: uint8 (H, W, 3) RGB of any sizes -> features, one a picture."""
        return self.encode_resized([self.resize(image) for image in images])

    def resize(self, image: np.ndarray) -> Tensor:
        """Resize uint8 (H, W, 3) RGB to the network's input, uint8 (1, 3, side, side), on the CPU; see `resize`."""
        return resize(image, self.image_size)

    @torch.inference_mode()
    def encode_resized(self, resized: Sequence[Tensor]) -> list[ImageFeatures]:
        """Encode images that `resize` made, together -> features, one a picture."""
        with _stage("image"):
            pixels = normalise(torch.cat(list(resized)).to(self.device)).to(self.dtype)
            features = self.model.encode_image(pixels)
        return [features.select([i]) for i in range(len(resized))]  # copies: one kept must not keep them all

    @torch.inference_mode()
    def encode_texts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Prompts -> (T, C) each; the most recent ones are remembered.

        Raises:
            PromptError: A prompt is empty or too long.
        """
        ids = {prompt: self.tokenizer(prompt) for prompt in prompts}
        with self._texts_lock:
            known = {prompt: self._texts[prompt] for prompt in ids if prompt in self._texts}
        new = [prompt for prompt in ids if prompt not in known]
        if new:
            longest = max(len(ids[prompt]) for prompt in new)
            padded = torch.tensor([ids[prompt] + [0] * (longest - len(ids[prompt])) for prompt in new])
            with _stage("text"):
                encoded = self.model.encode_text(padded.to(self.device))
            known |= {prompt: row[: len(ids[prompt])].clone() for prompt, row in zip(new, encoded, strict=True)}
        with self._texts_lock:
            for prompt in ids:
                self._texts[prompt] = known[prompt]
                self._texts.move_to_end(prompt)
            while len(self._texts) > _TEXTS_KEPT:
                self._texts.popitem(last=False)
        return [known[prompt] for prompt in prompts]

    @torch.inference_mode()
    def find(
        self, image: ImageFeatures, queries: Sequence[Query], *, threshold: float, most: int | None = None
    ) -> list[Found]:
        """Look for each query in one encoded image; keep what scores above ``threshold``, at most ``most`` each."""
        return self.find_each([(image, query) for query in queries], threshold=threshold, most=most)

    @torch.inference_mode()
    def find_each(
        self, pairs: Sequence[tuple[ImageFeatures, Query]], *, threshold: float, most: int | None = None
    ) -> list[Found]:
        """Look for each query in its own encoded image; see `find`. All pairs share forward passes."""
        if not pairs:
            return []
        texts = self.encode_texts([query.text for _, query in pairs])
        height, width = pairs[0][0].grid
        chunk = max(1, _TOKENS_AT_ONCE // (height * width))
        found: list[Found] = []
        for start in range(0, len(pairs), chunk):
            part = slice(start, start + chunk)
            with _stage("prompt"):
                queries = [query for _, query in pairs[part]]
                found += self._decode(_rows([image for image, _ in pairs[part]]), queries, texts[part], threshold, most)
        return found

    def _decode(
        self,
        image: ImageFeatures,
        queries: Sequence[Query],
        texts: Sequence[Tensor],
        threshold: float,
        most: int | None,
    ) -> list[Found]:
        model = self.model  # image: a row a query
        text, valid = _pad(texts)
        prompt = model.prompt(image, text, valid, self._boxes(queries))
        encoded = model.encode_prompted(image, prompt)
        detections = model.detect(image, encoded, prompt, self._constants)
        scores = detections.scores.nan_to_num(0)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :most]
        counts = (scores.gather(1, order) > threshold).sum(1).tolist()
        grid = tuple(4 * n for n in image.grid)
        masks: dict[int, Tensor] = {}
        if rows := [row for row, count in enumerate(counts) if count]:  # the rest need no mask head
            index = torch.tensor(rows, device=scores.device)
            kept = order[index, : max(counts)]
            chosen = detections.queries[index].gather(1, kept[..., None].expand(-1, -1, detections.queries.shape[-1]))
            seen = image if len(rows) == len(queries) else image.select(index)
            logits = model.masks(seen, encoded[index], prompt.select(index), chosen, self._constants)
            masks = {row: logits[i, : counts[row]].float() for i, row in enumerate(rows)}
        presence = detections.presence_logits.sigmoid().tolist()
        if not all(map(math.isfinite, presence)):
            raise InferenceError(
                f"the network computed values that are no numbers, in {self.dtype}; load it with dtype 'float32'"
            )
        return [
            Found(
                scores=scores[row, order[row, :count]].cpu().numpy(),
                boxes_xyxy=_corners(detections.boxes_cxcywh[row, order[row, :count]]),
                mask_logits=masks.get(row, torch.zeros(0, *grid)),
                presence=presence[row],
            )
            for row, count in enumerate(counts)
        ]

    def _boxes(self, queries: Sequence[Query]) -> BoxPrompts | None:
        longest = max(len(query.boxes) for query in queries)
        if not longest:
            return None
        empty = BoxPrompt((0.5, 0.5, 1.0, 1.0), positive=False)
        padded = [[*query.boxes, *[empty] * (longest - len(query.boxes))] for query in queries]
        return BoxPrompts(
            torch.tensor([[box.cxcywh for box in row] for row in padded], device=self.device),
            torch.tensor([[box.positive for box in row] for row in padded], device=self.device),
            torch.tensor([[i < len(query.boxes) for i in range(longest)] for query in queries], device=self.device),
        )


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Name the part of the network in which a computation failed."""
    try:
        yield
    except torch.OutOfMemoryError as err:
        raise OutOfMemoryError(f"out of memory in the {name} part of the network: {err}") from err
    except RuntimeError as err:
        raise InferenceError(f"the network failed in its {name} part: {err}") from err


def _rows(images: Sequence[ImageFeatures]) -> ImageFeatures:
    """A row an image; nothing is copied where all are the same one."""
    if all(image is images[0] for image in images):
        return images[0].repeat(len(images))
    return ImageFeatures(
        torch.cat([image.coarse for image in images]),
        torch.cat([image.tokens for image in images]),
        tuple(torch.cat(maps) for maps in zip(*(image.laterals for image in images), strict=True)),
    )


def _pad(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Texts (T, C) of different lengths -> (P, longest, C), and which tokens are real, bool (P, longest)."""
    lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
    padded = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]


def _corners(boxes_cxcywh: Tensor) -> np.ndarray:
    return cxcywh_to_xyxy(boxes_cxcywh).clamp(0, 1).cpu().numpy()


def choose_device(name: str) -> torch.device:
    """The device of a name, "auto" being the best there is.

    Raises:
        InvalidRequestError: There is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        reason = str(err).splitlines()[0]
        raise InvalidRequestError(
            f"the device {name!r} cannot be used (torch {torch.__version__}): {reason}; 'auto' takes the best there is"
        ) from err
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of a name, "auto" being the best for a device.

    Raises:
        InvalidRequestError: It is none of :data:`DTYPES`.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InvalidRequestError(f"the precision {name!r} is none of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def preprocess(image: np.ndarray, size: int) -> Tensor:
    """An image as the network takes it: `resize`, then `normalise`; fp32 (1, 3, size, size)."""
    return normalise(resize(image, size))


def resize(image: np.ndarray, size: int) -> Tensor:
    """Resize without keeping the aspect ratio (antialiased bilinear).

    Args:
        image: uint8 (H, W, 3), RGB.
        size: Side of the model's input, in pixels.

    Returns:
        uint8 (1, 3, size, size)
    """
    writable = np.require(image, requirements=["C", "W"])  # Pillow's arrays are not, and torch warns of those
    pixels = torch.from_numpy(writable).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def normalise(pixels: Tensor) -> Tensor:
    """0..255 -> -1..1, fp32."""
    return pixels.float() / 127.5 - 1
