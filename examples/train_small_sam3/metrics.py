"""How good masks are: found instances against the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

MATCH = 0.5
"""IoU from which a found mask counts as the instance."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one prompt: counts, and the IoU of each found mask that belongs to an instance."""

    expected: int
    found: int
    ious: tuple[float, ...]

    @property
    def matched(self) -> int:
        """Number of instances found."""
        return sum(iou >= MATCH for iou in self.ious)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a set of prompts; None where no prompt tells."""

    f1: float | None
    """Mask F1 at IoU 0.5, over the prompts that something answers."""
    precision: float | None
    recall: float | None
    mean_iou: float | None
    """Of matched masks; where things are clicked, of all."""
    left_empty: float | None
    """Share of the prompts that nothing answers for which nothing was found."""
    prompts: int


def compare(found: np.ndarray, truth: np.ndarray) -> Outcome:
    """Match masks one to one so that the sum of their IoUs is largest.

    Args:
        found: bool (N, H, W).
        truth: bool (M, H, W).
    """
    return Outcome(len(truth), len(found), match_ious(mask_iou(found, truth)))


def match_ious(iou: np.ndarray, at_least: float = MATCH) -> tuple[float, ...]:
    """Return the IoU, if not too low, of each match of found with true masks: (N, M) -> at most min(N, M)."""
    matched = iou[linear_sum_assignment(-iou)]
    return tuple(float(v) for v in matched[matched >= at_least])


def mask_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool (N, H, W), (M, H, W) -> IoU (N, M)."""
    pixels = a.shape[1] * a.shape[2]
    flat_a, flat_b = a.reshape(-1, pixels).astype(np.float32), b.reshape(-1, pixels).astype(np.float32)
    both = flat_a @ flat_b.T
    either = flat_a.sum(1)[:, None] + flat_b.sum(1)[None] - both
    return both / np.maximum(either, 1)


def summarise(outcomes: Iterable[Outcome]) -> Figures:
    """Add up the outcomes of prompts."""
    outcomes = list(outcomes)
    positive = [o for o in outcomes if o.expected]
    negative = [o for o in outcomes if not o.expected]
    matched = sum(o.matched for o in positive)
    found, expected = sum(o.found for o in positive), sum(o.expected for o in positive)
    ious = [v for o in positive for v in o.ious]
    return Figures(
        f1=2 * matched / (found + expected) if positive else None,
        precision=matched / found if found else None,
        recall=matched / expected if expected else None,
        mean_iou=float(np.mean(ious)) if ious else None,
        left_empty=sum(o.found == 0 for o in negative) / len(negative) if negative else None,
        prompts=len(outcomes),
    )
