"""The three forward passes of the network that a predictor runs, with everything between two waits for the device.

Shapes: B images, P prompts, Q queries, T text tokens, C channels, K instances, h x w the patch grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from s3seg.sam3.layers import cxcywh_to_xyxy
from s3seg.sam3.model import BoxPrompts, Constants, ImageFeatures, Prompt, Sam3
from s3seg.sam3.resize import normalise


@dataclass(frozen=True, slots=True)
class Detected:
    """What the network predicts for P prompts, apart from masks; the queries of each prompt best first."""

    encoded: Tensor
    """(P, h * w, C): the image tokens, conditioned on the prompt."""
    prompt: Prompt
    """The tokens of each prompt."""
    queries: Tensor
    """(P, Q, C), the input of the mask head."""
    packed: Tensor
    """fp32 (P, 1 + 5 * Q): presence, Q scores, Q boxes xyxy normalised to the image. All 0..1, unless not finite."""

    def select(self, rows: Tensor) -> Detected:
        """Copy some prompts: row i of the result is prompt ``rows[i]``."""
        return Detected(self.encoded[rows], self.prompt.select(rows), self.queries[rows], self.packed[rows])


class Passes:
    """The forward passes. None of them waits for the device; `Predictor` reads results after each of the last two.

    Args:
        model: The network.
        constants: Of the network, for the patch grid of its image size.
    """

    max_prompts: int | None = None
    """The most prompts in one pass, whatever their size; None for no limit."""

    def __init__(self, model: Sam3, constants: Constants) -> None:
        self.model = model
        self.constants = constants

    def rows(self, count: int) -> int:
        """Return how many images or prompts a pass over ``count`` of them shall have; the caller repeats the last."""
        return count

    def tokens(self, count: int) -> int | None:
        """Return the length to which texts of at most ``count`` tokens are padded; None: as long as the longest."""
        return None

    def instances(self, count: int) -> int:
        """Return for how many instances of each prompt masks are made, if ``count`` are needed."""
        return count

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Encode images: uint8 (B, 3, side, side)."""
        return self.model.encode_image(normalise(pixels).to(self.model.vision.trunk.patch_embed.weight.dtype))

    def detect(self, image: ImageFeatures, text: Tensor, valid: Tensor | None, boxes: BoxPrompts | None) -> Detected:
        """Predict everything but masks.

        Args:
            image: One row for each prompt, or a single one for all.
            text: As for `Sam3.prompt`.
            valid: As for `Sam3.prompt`.
            boxes: As for `Sam3.prompt`.
        """
        image = _for_each(image, text.shape[0])
        prompt = self.model.prompt(image, text, valid, boxes)
        encoded = self.model.encode_prompted(image, prompt)
        found = self.model.detect(image, encoded, prompt, self.constants)
        scores = found.scores.nan_to_num(0)
        order = scores.argsort(dim=1, descending=True, stable=True)
        corners = cxcywh_to_xyxy(_rows(found.boxes_cxcywh, order)).clamp(0, 1)
        presence = found.presence_logits.sigmoid()[:, None]
        packed = torch.cat([presence, scores.gather(1, order), corners.flatten(1)], dim=1)
        return Detected(encoded, prompt, _rows(found.queries, order), packed)

    def masks(self, image: ImageFeatures, detected: Detected, instances: int) -> Tensor:
        """Compute mask logits of the best instances of each prompt: fp32 (P, instances, 4h, 4w).

        Args:
            image: One row for each prompt, or a single one for all.
            detected: The result of `detect`.
            instances: How many masks to make for each prompt.
        """
        image = _for_each(image, detected.encoded.shape[0])
        queries = detected.queries[:, :instances]
        return self.model.masks(image, detected.encoded, detected.prompt, queries, self.constants).float()

    def forget(self) -> None:
        """Give back memory that is held only to be faster; nothing is held here."""


def _for_each(image: ImageFeatures, prompts: int) -> ImageFeatures:
    return image.repeat(prompts) if image.coarse.shape[0] == 1 else image


def _rows(values: Tensor, order: Tensor) -> Tensor:
    """Reorder (P, Q, n) by (P, Q)."""
    return values.gather(1, order[..., None].expand(-1, -1, values.shape[-1]))
