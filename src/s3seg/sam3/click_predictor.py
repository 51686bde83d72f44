"""`ClickPredictor`: the click head with numbers as input and mask logits as output."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s3seg.errors import InferenceError
from s3seg.results.masks import RLE
from s3seg.sam3 import postprocess
from s3seg.sam3.click_prompts import BOX_END, BOX_START, NEGATIVE, POSITIVE, ClickPrompts
from s3seg.sam3.clicks import ClickFeatures, ClickHead
from s3seg.sam3.model import ImageFeatures

_OBJECTS_AT_ONCE = 16
_EARLIER_SCALE, _EARLIER_BIAS = 20.0, -10.0  # from a mask, 0..1, to its logits, as in the reference implementation


@dataclass(frozen=True, slots=True, eq=False)
class ClickQuery:
    """One object: points, a box, and perhaps a mask to start from. Coordinates are normalised to the image, 0..1."""

    points: Sequence[tuple[float, float]]
    labels: Sequence[bool]
    box_xyxy: tuple[float, float, float, float] | None = None
    mask: np.ndarray | None = None
    """(H, W), 0..1, of any size: the share of each cell that the mask covers."""

    @property
    def ambiguous(self) -> bool:
        """Whether it is a single point, which may mean a thing, a part of it, or what it belongs to."""
        return len(self.points) == 1 and self.box_xyxy is None and self.mask is None


@dataclass(frozen=True, slots=True, eq=False)
class ClickedMasks:
    """The masks of one object: one, or the alternatives."""

    ious: np.ndarray
    """float32 (N,), 0..1: the predicted IoU of each mask with the object."""
    mask_logits: Tensor
    """fp32 (N, h, w), in the CPU's memory; h and w are 4 times the patch grid."""
    presence: float
    """The probability that there is an object, 0..1."""

    def rles(self, size: tuple[int, int]) -> tuple[RLE, ...]:
        """Make the masks at the size (height, width) of the image."""
        return tuple(postprocess.encode(logits, size) for logits in self.mask_logits.numpy())


class ClickPredictor:
    """Predicts masks from clicks. Safe to share between threads.

    The features that an image needs for clicks are computed at its first click, and kept as long as its encoding is.

    Args:
        head: The click head of the network.
    """

    def __init__(self, head: ClickHead) -> None:
        self._head = head
        self._features: weakref.WeakKeyDictionary[ImageFeatures, ClickFeatures] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    @torch.inference_mode()
    def features(self, image: ImageFeatures) -> ClickFeatures:
        """Return the features of an encoded image for clicks, computed once."""
        with self._lock:
            known = self._features.get(image)
        if known is None:
            if image.patches is None:
                raise InferenceError("this image was encoded by a network without a click head; encode it again")
            known = self._head.features(image.patches)
            with self._lock:
                self._features[image] = known
        return known

    @torch.inference_mode()
    def predict(
        self, image: ImageFeatures, queries: Sequence[ClickQuery], *, alternatives: bool = False
    ) -> list[ClickedMasks]:
        """Predict the masks of objects in one encoded image.

        Args:
            image: As `Predictor.encode_images` returns it.
            queries: Any number of objects; they share forward passes.
            alternatives: Return all alternatives of each object, the best first, instead of one mask.

        Returns:
            One result for each object. Where only one mask is wanted, it is the best alternative for a single point,
            and the mask for prompts that leave no doubt otherwise.
        """
        features = self.features(image)
        results: list[ClickedMasks] = []
        for start in range(0, len(queries), _OBJECTS_AT_ONCE):
            part = queries[start : start + _OBJECTS_AT_ONCE]
            results += self._predict(features, part, alternatives)
        return results

    def _predict(
        self, features: ClickFeatures, queries: Sequence[ClickQuery], alternatives: bool
    ) -> list[ClickedMasks]:
        found = self._head(features, self._prompts(features, queries))
        if alternatives:
            ious, order = found.ious[:, 1:].sort(dim=1, descending=True, stable=True)
            rows = torch.arange(len(queries), device=order.device)[:, None]
            logits = found.mask_logits[rows, order + 1]
        else:
            ambiguous = torch.tensor([query.ambiguous for query in queries], device=found.ious.device)
            best, best_ious = self._head.decoder.best(found)
            single, single_ious = self._head.decoder.single(found)
            logits = torch.where(ambiguous[:, None, None], best, single)[:, None]
            ious = torch.where(ambiguous, best_ious, single_ious)[:, None]
        presence = found.object_logits.sigmoid()
        if not (ious.isfinite().all() and presence.isfinite().all()):
            raise InferenceError("the network computed values that are not finite; load it with dtype 'float32'")
        return [
            ClickedMasks(one_iou, one_logits, one_presence)
            for one_iou, one_logits, one_presence in zip(
                ious.cpu().numpy(), logits.float().cpu(), presence.tolist(), strict=True
            )
        ]

    def _prompts(self, features: ClickFeatures, queries: Sequence[ClickQuery]) -> ClickPrompts:
        device = features.tokens.device
        points: list[list[tuple[float, float]]] = []
        labels: list[list[int]] = []
        for query in queries:
            places = list(query.points)
            says = [POSITIVE if label else NEGATIVE for label in query.labels]
            if query.box_xyxy is not None:
                x1, y1, x2, y2 = query.box_xyxy
                places += [(x1, y1), (x2, y2)]
                says += [BOX_START, BOX_END]
            points.append(places)
            labels.append(says)
        longest = max(map(len, points))
        padding = [longest - len(places) for places in points]
        valid = None
        if any(padding):
            real = [[True] * len(p) + [False] * n for p, n in zip(points, padding, strict=True)]
            valid = torch.tensor(real, device=device)
        masks = has_mask = None
        if any(query.mask is not None for query in queries):
            side = tuple(4 * n for n in features.grid)
            rows = [_mask_logits(query.mask, side) for query in queries]
            masks = torch.stack(rows).to(device)
            has_mask = torch.tensor([query.mask is not None for query in queries], device=device)
        return ClickPrompts(
            torch.tensor([p + [(0.0, 0.0)] * n for p, n in zip(points, padding, strict=True)], device=device),
            torch.tensor([says + [NEGATIVE] * n for says, n in zip(labels, padding, strict=True)], device=device),
            valid,
            masks,
            has_mask,
        )


def _mask_logits(mask: np.ndarray | None, size: tuple[int, ...]) -> Tensor:
    if mask is None:
        return torch.zeros(size)
    covered = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    resized = F.interpolate(covered, size=size, mode="bilinear", antialias=True)[0, 0]
    return resized * _EARLIER_SCALE + _EARLIER_BIAS
