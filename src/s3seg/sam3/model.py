"""The complete SAM 3 image model: image and text are encoded independently and combined in the detector.

Shapes in this module: B images, P prompts, Q queries, M prompt tokens, C channels, h x w the patch grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from s3seg.sam3.clicks import ClickHead
from s3seg.sam3.config import LiteTextConfig, Sam3Config
from s3seg.sam3.decoder import Decoder, DecoderOutput, DecoderState
from s3seg.sam3.encoder import Encoder
from s3seg.sam3.geometry import GeometryEncoder
from s3seg.sam3.heads import MaskHead, Scoring
from s3seg.sam3.lite_text import LiteTextEncoder
from s3seg.sam3.positions import encode_grid
from s3seg.sam3.text import ClipTextEncoder, TextEncoder
from s3seg.sam3.vision import VisionEncoder


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ImageFeatures:
    """Everything that is computed from images before a prompt is known."""

    coarse: Tensor
    """The neck's coarsest feature map, (B, C, h, w)."""
    tokens: Tensor
    """(B, h * w, C): `coarse` after the encoder's first self-attention; see `Encoder.first_self_attention`."""
    laterals: tuple[Tensor, ...]
    """(B, C, s * h, s * w) for s = 2, 4: the inputs of the pixel decoder; see `MaskHead.laterals`."""
    patches: Tensor | None = None
    """(B, h, w, width): the ViT's output, of which `ClickHead.features` is computed; None without a click head."""

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid, (h, w)."""
        return self.coarse.shape[-2], self.coarse.shape[-1]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(part.nbytes for part in (self.coarse, self.tokens, *self.laterals, self.patches) if part is not None)

    def copy(self, image: int) -> ImageFeatures:
        """Copy one of the images (B = 1)."""
        row = slice(image, image + 1)
        laterals = tuple(lateral[row].clone() for lateral in self.laterals)
        patches = None if self.patches is None else self.patches[row].clone()
        return ImageFeatures(self.coarse[row].clone(), self.tokens[row].clone(), laterals, patches)

    def repeat(self, prompts: int) -> ImageFeatures:
        """Expand a single image (B = 1) to one row per prompt, without copying it, and without `patches`."""
        laterals = tuple(lateral.expand(prompts, -1, -1, -1) for lateral in self.laterals)
        return ImageFeatures(self.coarse.expand(prompts, -1, -1, -1), self.tokens.expand(prompts, -1, -1), laterals)


@dataclass(frozen=True, slots=True)
class BoxPrompts:
    """The boxes of P prompts, padded to the same number B."""

    boxes_cxcywh: Tensor
    """fp32 (P, B, 4), normalized to the image, 0..1."""
    labels: Tensor
    """bool (P, B), True for a positive box and False for a negative one."""
    valid: Tensor
    """bool (P, B), False where a row is padding."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens of P prompts: text, boxes and CLS."""

    tokens: Tensor
    """(P, M, C)"""
    valid: Tensor | None
    """bool (P, M), False where a token is padding; None if there is no padding."""

    def select(self, index: Tensor) -> Prompt:
        """Return the prompts of some rows."""
        return Prompt(self.tokens[index], None if self.valid is None else self.valid[index])


@dataclass(frozen=True, slots=True)
class Constants:
    """Values that depend on the weights and the patch grid only, neither on an image nor on a prompt."""

    decoder_state: DecoderState
    """The decoder after its first self-attention, which `Decoder.initial_state` computes."""
    doubling_kernels: tuple[Tensor, ...]
    """(C, C, 4, 4) for each stage of the mask head; see `doubling_kernel`."""


@dataclass(frozen=True, slots=True)
class Detections:
    """The predictions of a decoder layer for P prompts, Q queries each."""

    logits: Tensor
    """fp32 (P, Q): how well each query matches the prompt."""
    presence_logits: Tensor
    """fp32 (P,): whether the concept is in the image at all."""
    boxes_cxcywh: Tensor
    """fp32 (P, Q, 4), normalized to the image, 0..1."""
    queries: Tensor
    """(P, Q, C), the input of the mask head."""

    @property
    def scores(self) -> Tensor:
        """fp32 (P, Q), 0..1: sigmoid of the logit times sigmoid of the presence logit."""
        return self.logits.sigmoid() * self.presence_logits.sigmoid()[:, None]


class Sam3(nn.Module):
    """The image model of SAM 3: Segment Anything with Concepts (Carion et al., 2025), for inference and training.

    `encode_image` and `encode_text` are independent of each other, so the features of an image can be reused for many
    prompts and those of a text for many images. Then call `prompt`, `encode_prompted`, `detect` and `masks`, in this
    order. It corresponds to ``Sam3Image`` (``sam3/model/sam3_image.py``) of the reference implementation.
    """

    def __init__(self, config: Sam3Config) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config)
        self.text = _text_encoder(config)
        self.geometry = GeometryEncoder(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.scoring = Scoring(config)
        self.mask_head = MaskHead(config)
        self.clicks = None if config.clicks is None else ClickHead(config.clicks, config.vision, config.channels)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode pixels (B, 3, H, W) in -1..1, with H and W multiples of the patch size."""
        patches = self.vision.trunk(pixels)
        features = self.features(self.vision.neck(patches))
        return features if self.clicks is None else replace(features, patches=patches)

    def features(self, maps: Sequence[Tensor]) -> ImageFeatures:
        """Compute everything that needs no prompt from the maps of the vision encoder, finest first."""
        *finer, coarse = maps
        tokens = coarse.flatten(2).transpose(1, 2)
        return ImageFeatures(
            coarse, self.encoder.first_self_attention(tokens, _positions(coarse)), self.mask_head.laterals(finer)
        )

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Encode token ids, int64 (P, T), padded with 0 -> (P, T, C); see `TextEncoder.forward`."""
        return self.text(token_ids)

    def prompt(self, image: ImageFeatures, text: Tensor, text_valid: Tensor | None, boxes: BoxPrompts | None) -> Prompt:
        """Combine text and boxes into prompt tokens.

        Args:
            image: Image features, one row per prompt.
            text: The result of `encode_text`, (P, T, C).
            text_valid: bool (P, T), False after the end of a text; None if all texts are equally long.
            boxes: The boxes of all prompts, or None if no prompt has any.
        """
        if boxes is None:
            if not self.config.cls_on_text_prompts:
                return Prompt(text, text_valid)
            none = torch.zeros(text.shape[0], 0, dtype=torch.bool, device=text.device)
            boxes = BoxPrompts(torch.zeros(text.shape[0], 0, 4, device=text.device), labels=none, valid=none)
        tokens, valid = self.examples(image, boxes)
        if not self.config.cls_on_text_prompts and valid is not None:
            valid = valid & boxes.valid.any(1, keepdim=True)  # without boxes, no CLS token because of its neighbors
        joined = torch.cat([text, tokens], dim=1)
        if text_valid is None and valid is None:
            return Prompt(joined, None)
        parts = [(text_valid, text), (valid, tokens)]
        return Prompt(joined, torch.cat([_all_true(part) if known is None else known for known, part in parts], dim=1))

    def examples(self, image: ImageFeatures, boxes: BoxPrompts) -> tuple[Tensor, Tensor | None]:
        """Encode what boxes show in images as prompt tokens, which may be used on other images too.

        Args:
            image: Image features, one row per set of boxes.
            boxes: The boxes.

        Returns:
            Tokens (P, B + 1, C), one for each box and the CLS token, and which of them are real, bool (P, B + 1), or
            None if all are.
        """
        return self.geometry(boxes.boxes_cxcywh, boxes.labels, boxes.valid, image.coarse, _positions(image.coarse))

    def encode_prompted(self, image: ImageFeatures, prompt: Prompt) -> Tensor:
        """Run the DETR encoder: image tokens conditioned on each prompt, (P, h * w, C)."""
        return self.encoder(image.tokens, _positions(image.coarse), prompt.tokens, prompt.valid)

    def constants(self, grid: tuple[int, int]) -> Constants:
        """Compute the `Constants` for a patch grid (h, w). They can be reused until the weights change."""
        return Constants(self.decoder.initial_state(grid), self.mask_head.doubling_kernels())

    def detect(
        self, image: ImageFeatures, encoded: Tensor, prompt: Prompt, constants: Constants | None = None
    ) -> Detections:
        """Return the predictions of the last decoder layer.

        Args:
            image: Image features, one row per prompt.
            encoded: The result of `encode_prompted`, (P, h * w, C).
            prompt: The result of `prompt`.
            constants: The result of `constants` for this patch grid; None computes it.
        """
        *_, last = self._decode(image, encoded, prompt, constants)
        return self._score(last, prompt)

    def detect_all(self, image: ImageFeatures, encoded: Tensor, prompt: Prompt) -> list[Detections]:
        """Return the predictions of every decoder layer, as training needs them."""
        return [self._score(output, prompt) for output in self._decode(image, encoded, prompt, None)]

    def masks(
        self, image: ImageFeatures, encoded: Tensor, prompt: Prompt, queries: Tensor, constants: Constants | None = None
    ) -> Tensor:
        """Compute mask logits (P, Q, 4h, 4w) for some queries (P, Q, C) of `detect`, from the same inputs."""
        kernels = self.mask_head.doubling_kernels() if constants is None else constants.doubling_kernels
        pixels = self.mask_head.embed_pixels(image.laterals, kernels, image.grid, encoded, prompt.tokens, prompt.valid)
        return self.mask_head(queries, pixels)

    def _decode(
        self, image: ImageFeatures, encoded: Tensor, prompt: Prompt, constants: Constants | None
    ) -> Iterator[DecoderOutput]:
        initial = self.decoder.initial_state(image.grid) if constants is None else constants.decoder_state
        return self.decoder(encoded, _positions(image.coarse), image.grid, prompt.tokens, prompt.valid, initial)

    def _score(self, output: DecoderOutput, prompt: Prompt) -> Detections:
        return Detections(
            logits=self.scoring(output.queries, prompt.tokens, prompt.valid),
            presence_logits=self.decoder.presence_logits(output.presence_token),
            boxes_cxcywh=output.boxes_cxcywh,
            queries=output.queries,
        )


def _text_encoder(config: Sam3Config) -> TextEncoder:
    if isinstance(config.text, LiteTextConfig):
        return LiteTextEncoder(config.text, config.channels)
    return ClipTextEncoder(config.text, config.channels)


def _all_true(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


def _positions(coarse: Tensor) -> Tensor:
    """Position encodings of the patch grid, (h * w, C), in the dtype of the map (B, C, h, w)."""
    _, channels, height, width = coarse.shape
    return encode_grid(height, width, channels, coarse.device).to(coarse.dtype)
