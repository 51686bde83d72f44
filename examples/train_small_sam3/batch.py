"""What the losses compare with, and what it is made of: drawn scenes with questions, and one view of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

OF_IMAGES = (
    "images", "patch_labels", "attributes", "boxes", "masks", "valid", "matches", "unclear", "click_thing",
    "click_point",
)  # fmt: skip
"""The fields of a batch whose first dimension is that of its images."""
BACKGROUND, UNCLEAR = 0, -1
"""Labels of patches: no thing, or a bit of one; otherwise 1 + the index of the thing."""


@dataclass(frozen=True)
class Batch:
    """B images of at most N things, of which A are asked, T texts, and R rows: a row is one image with one prompt.

    The T texts are D that the dense losses compare with all patches, then K names of every concept and shape, with
    which the naming loss compares whole things, then the rest of what the rows ask.
    """

    images: Tensor  # uint8 (B, 3, S, S)
    patch_labels: Tensor  # int64 (B, G, G): which thing a patch shows
    attributes: Tensor  # int64 (B, N + 1, 4): concept, shape, colour, pattern; -1 unknown; row 0 is the background
    boxes: Tensor  # fp32 (B, N, 4), cxcywh, 0..1
    masks: Tensor  # uint8 (B, N, 4 G, 4 G): coverage, 0..255
    valid: Tensor  # bool (B, N): large enough to count
    token_ids: Tensor  # int64 (T, MOST_TOKENS)
    token_valid: Tensor  # bool (T, MOST_TOKENS)
    dense: Tensor  # bool (D,): False for "visual", which names nothing
    matches: Tensor  # bool (B, N + 1, D + K): which things a text finds; row 0 is the background
    unclear: Tensor  # bool (B, N + 1, D + K): whether it finds them is unknown: "red car", a car in its own colours
    asked: Tensor  # int64 (A,): the images that the rows are of
    row_image: Tensor  # int64 (R,): the first R / A rows are of the first asked image, and so on
    row_text: Tensor  # int64 (R,)
    row_targets: Tensor  # bool (R, N)
    shown_boxes: Tensor  # fp32 (R, MOST_BOXES, 4)
    shown_image: Tensor  # int64 (R,): the image that the boxes are on; mostly the row's own
    shown_labels: Tensor  # bool (R, MOST_BOXES)
    shown_valid: Tensor  # bool (R, MOST_BOXES)
    click_thing: Tensor  # int64 (B, K): things for the click head, valid ones first
    click_point: Tensor  # fp32 (B, K, 2): x and y of a point on each, 0..1

    @property
    def texts(self) -> int:
        """D, the number of texts of the dense losses."""
        return len(self.dense)

    @property
    def names(self) -> int:
        """K, the number of names."""
        return self.matches.shape[-1] - self.texts

    @property
    def targets_by_image(self) -> Tensor:
        """bool (A, P, N): the rows of an image follow each other, and all asked images have P of them."""
        return self.row_targets.unflatten(0, (len(self.asked), -1))

    def only_asked(self) -> Batch:
        """Return the batch without the images that are not asked. What the rows are shown is left out too."""
        if len(self.asked) == len(self.images):
            return self
        mine = {name: getattr(self, name)[self.asked] for name in OF_IMAGES}
        asked = torch.arange(len(self.asked), device=self.asked.device)
        prompts = len(self.row_image) // len(asked)
        return replace(
            self, **mine, asked=asked, row_image=asked[:, None].expand(-1, prompts).flatten(),
            shown_boxes=self.shown_boxes[:0], shown_image=self.shown_image[:0], shown_labels=self.shown_labels[:0],
            shown_valid=self.shown_valid[:0],
        )  # fmt: skip

    def first_images(self, count: int) -> Batch:
        """Return the batch with its first images only; rows are kept, including those about the other images."""
        return replace(self, **{name: getattr(self, name)[:count] for name in OF_IMAGES})

    def trimmed(self) -> Batch:
        """Return the batch without the columns of tokens that are padding of all texts; waits for the device."""
        longest = int(self.token_valid.any(0).sum())
        return replace(self, token_ids=self.token_ids[:, :longest], token_valid=self.token_valid[:, :longest])


@dataclass(frozen=True)
class DrawnScenes:
    """B scenes of at most N things, and what is asked of each of V views of them: what a worker composes.

    Nothing in it depends on where a thing is seen, or on how large; `views.look` adds that.
    """

    images: Tensor  # uint8 (B, S, S, 3)
    ids: Tensor  # uint8 (B, S, S): which thing is visible, 0 for none, k for the k-th
    attributes: Tensor  # int64 (B, N + 1, 4)
    token_ids: Tensor  # int64 (V, T, MOST_TOKENS)
    token_valid: Tensor  # bool (V, T, MOST_TOKENS)
    dense: Tensor  # bool (V, D)
    matches: Tensor  # bool (V, B, N + 1, D + K): also of things that are too small to count
    unclear: Tensor  # bool (V, B, N + 1, D + K)
    asked: Tensor  # int64 (V, A)
    row_image: Tensor  # int64 (V, R)
    row_text: Tensor  # int64 (V, R)
    row_targets: Tensor  # bool (V, R, N): also things that are too small to count
    shown_image: Tensor  # int64 (V, R)
    shown_thing: Tensor  # int64 (V, R, MOST_BOXES): which things the boxes are around
    shown_labels: Tensor  # bool (V, R, MOST_BOXES)
    shown_valid: Tensor  # bool (V, R, MOST_BOXES)


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) -> fp32, -1..1."""
    return images.float() / 127.5 - 1
