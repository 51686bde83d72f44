"""SAM 3 for images, whole: image and text are encoded apart, and meet in the detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from s3seg.sam3.config import Sam3Config
from s3seg.sam3.decoder import Decoded, Decoder, Start
from s3seg.sam3.encoder import Encoder
from s3seg.sam3.geometry import GeometryEncoder
from s3seg.sam3.heads import MaskHead, Scoring
from s3seg.sam3.positions import encode_grid
from s3seg.sam3.text import TextEncoder
from s3seg.sam3.vision import VisionEncoder


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What is known of some images before any prompt."""

    coarse: Tensor
    """(B, C, h, w), from the neck; h and w are the patch grid."""
    tokens: Tensor
    """(B, h * w, C): `coarse` as the encoder takes it; see `Encoder.before_prompt`."""
    laterals: tuple[Tensor, ...]
    """(B, C, s * h, s * w) for s = 2, 4: what masks are refined with; see `MaskHead.laterals`."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.coarse.shape[-2], self.coarse.shape[-1]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(part.nbytes for part in (self.coarse, self.tokens, *self.laterals))

    def select(self, index: Tensor | list[int]) -> ImageFeatures:
        """A copy of some images: row p is image ``index[p]``."""
        laterals = tuple(lateral[index] for lateral in self.laterals)
        return ImageFeatures(self.coarse[index], self.tokens[index], laterals)

    def repeat(self, prompts: int) -> ImageFeatures:
        """The only image, as a row for each prompt; nothing is copied."""
        laterals = tuple(lateral.expand(prompts, -1, -1, -1) for lateral in self.laterals)
        return ImageFeatures(self.coarse.expand(prompts, -1, -1, -1), self.tokens.expand(prompts, -1, -1), laterals)


@dataclass(frozen=True, slots=True)
class BoxPrompts:
    """Boxes of P prompts, padded to the same number B."""

    boxes_cxcywh: Tensor
    """fp32 (P, B, 4), normalised to the image, 0..1."""
    labels: Tensor
    """bool (P, B), True for "like this", False for "not this"."""
    valid: Tensor
    """bool (P, B), False where a row is padding."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens that stand for P prompts: text, boxes and CLS."""

    tokens: Tensor
    """(P, M, C)"""
    valid: Tensor
    """bool (P, M), False where a token is padding."""

    def select(self, index: Tensor) -> Prompt:
        """The prompts of some rows."""
        return Prompt(self.tokens[index], self.valid[index])


@dataclass(frozen=True, slots=True)
class Constants:
    """What neither a picture nor a prompt changes."""

    start: Start
    doubling_kernels: tuple[Tensor, ...]
    """(C, C, 4, 4), one a stage of the mask head; see `doubling_kernel`."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What a decoder layer found for P prompts, Q queries each."""

    logits: Tensor
    """fp32 (P, Q): how well each query fits the prompt."""
    presence_logits: Tensor
    """fp32 (P,): whether the concept is in the image at all."""
    boxes_cxcywh: Tensor
    """fp32 (P, Q, 4), normalised to the image, 0..1."""
    queries: Tensor
    """(P, Q, C), from which the mask head makes masks."""

    @property
    def scores(self) -> Tensor:
        """fp32 (P, Q), 0..1: sigmoid of the logit times sigmoid of the presence logit."""
        return self.logits.sigmoid() * self.presence_logits.sigmoid()[:, None]


class Sam3(nn.Module):
    """Segment Anything 3, the image model (Carion et al., 2025), for inference and training.

    ``encode_image`` and ``encode_text`` are independent; one image's features serve many prompts, and one text's
    many images. ``detect`` brings them together, ``masks`` draws what it found.
    """

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config)
        self.text = TextEncoder(config)
        self.geometry = GeometryEncoder(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.scoring = Scoring(config)
        self.mask_head = MaskHead(config)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """(B, 3, H, W) normalised to -1..1, H and W multiples of the patch -> features of B images."""
        return self.features(self.vision(pixels))

    def features(self, maps: Sequence[Tensor]) -> ImageFeatures:
        """Maps of the neck, finest first -> all that can be computed of them before a prompt is known."""
        *finer, coarse = maps
        tokens = coarse.flatten(2).transpose(1, 2)
        return ImageFeatures(
            coarse, self.encoder.before_prompt(tokens, _positions(coarse)), self.mask_head.laterals(finer)
        )

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """int64 (P, T) -> (P, T, C). A causal model: what stands behind a text's end changes nothing before it."""
        return self.text(token_ids)

    def prompt(self, image: ImageFeatures, text: Tensor, text_valid: Tensor, boxes: BoxPrompts | None) -> Prompt:
        """Join what was said and what was shown.

        Args:
            image: Features with one row a prompt.
            text: (P, T, C), from :meth:`encode_text`.
            text_valid: bool (P, T), False behind a text's end.
            boxes: Boxes, or None for none.
        """
        if boxes is None:
            if not self.config.cls_on_text_prompts:
                return Prompt(text, text_valid)
            none = torch.zeros(len(text), 0, dtype=torch.bool, device=text.device)
            boxes = BoxPrompts(torch.zeros(len(text), 0, 4, device=text.device), labels=none, valid=none)
        tokens, valid = self.geometry(
            boxes.boxes_cxcywh, boxes.labels, boxes.valid, image.coarse, _positions(image.coarse)
        )
        if not self.config.cls_on_text_prompts:  # boxes of one prompt bring no CLS token to those beside it
            valid = valid & boxes.valid.any(1, keepdim=True)
        return Prompt(torch.cat([text, tokens], dim=1), torch.cat([text_valid, valid], dim=1))

    def encode_prompted(self, image: ImageFeatures, prompt: Prompt) -> Tensor:
        """The DETR encoder: image tokens that have taken in the prompt, (P, h * w, C)."""
        return self.encoder(image.tokens, _positions(image.coarse), prompt.tokens, prompt.valid)

    def constants(self, grid: tuple[int, int]) -> Constants:
        """What a patch grid (h, w) alone decides; worth keeping for as long as the weights stay as they are."""
        return Constants(self.decoder.start(grid), self.mask_head.doubling_kernels())

    def detect(
        self, image: ImageFeatures, encoded: Tensor, prompt: Prompt, constants: Constants | None = None
    ) -> Detections:
        """What the last decoder layer found."""
        *_, last = self._decode(image, encoded, prompt, constants)
        return self._score(last, prompt)

    def detect_all(self, image: ImageFeatures, encoded: Tensor, prompt: Prompt) -> list[Detections]:
        """What each decoder layer found; training learns from all of them."""
        return [self._score(decoded, prompt) for decoded in self._decode(image, encoded, prompt, None)]

    def masks(
        self, image: ImageFeatures, encoded: Tensor, prompt: Prompt, queries: Tensor, constants: Constants | None = None
    ) -> Tensor:
        """Mask logits (P, Q, 4h, 4w) of chosen queries (P, Q, C)."""
        kernels = self.mask_head.doubling_kernels() if constants is None else constants.doubling_kernels
        pixels = self.mask_head.embed_pixels(image.laterals, kernels, image.grid, encoded, prompt.tokens, prompt.valid)
        return self.mask_head(queries, pixels)

    def _decode(
        self, image: ImageFeatures, encoded: Tensor, prompt: Prompt, constants: Constants | None
    ) -> Iterator[Decoded]:
        start = self.decoder.start(image.grid) if constants is None else constants.start
        return self.decoder(encoded, _positions(image.coarse), image.grid, prompt.tokens, prompt.valid, start)

    def _score(self, decoded: Decoded, prompt: Prompt) -> Detections:
        return Detections(
            logits=self.scoring(decoded.queries, prompt.tokens, prompt.valid),
            presence_logits=self.decoder.presence_logits(decoded.presence_token),
            boxes_cxcywh=decoded.boxes_cxcywh,
            queries=decoded.queries,
        )


def _positions(coarse: Tensor) -> Tensor:
    """Position codes of the patch grid, (h * w, C), in a map's dtype."""
    _, channels, height, width = coarse.shape
    return encode_grid(height, width, channels, coarse.device).to(coarse.dtype)
