"""Sharpen the scores of a checkpoint as suits the rule by which its threshold is chosen.

    python -m train_small_sam3.calibrate CHECKPOINT --processes 2

A score is the product of two probabilities, that of the query and that of the presence. Training does not optimise how
steep each is: that is chosen here, on scenes of two splits which the evaluation does not use, and folded into the last
layers of both heads. Scores change, and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from s3seg.sam3.predictor import Predictor

from .concepts import load_vocabulary
from .evaluate import LEFT_EMPTY_AT_LEAST, masks_of
from .icons import load_atlas
from .metrics import mask_iou, match_ious
from .splits import Examiner

THRESHOLD_SPLIT, OTHER_SPLIT = "validation", "colour and thing"
"""The one that chooses thresholds in the evaluation, and one of prompts that it hardly has."""
FIRST_SCENE = 1000
"""Far behind the scenes that the evaluation uses."""
NEARLY = 0.002
"""F1 that a milder calibration may be worse: about as much as chance makes of it."""
LOWEST = 0.01
QUERY_SLOPES = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
PRESENCE_SLOPES = (0.7, 1.0, 1.4, 2.0)
PRESENCE_SHIFTS = (-1.0, 0.0, 1.0, 2.0)
AT_ONCE = 10


@dataclass(frozen=True)
class Said:
    """What a checkpoint said to a prompt."""

    presence: float
    scores: np.ndarray
    iou: np.ndarray
    """(N, M), of found masks with true ones."""


@dataclass(frozen=True)
class Calibration:
    """How logits are changed: presence * presence_slope + presence_shift, and query * query_slope."""

    query_slope: float = 1.0
    presence_slope: float = 1.0
    presence_shift: float = 0.0

    @property
    def strength(self) -> float:
        """Return how far it is from changing nothing."""
        return math.hypot(math.log(self.query_slope), math.log(self.presence_slope), self.presence_shift)

    def scores(self, said: Said) -> np.ndarray:
        """Return the scores as they would have been."""
        query = np.clip(said.scores / max(said.presence, 1e-6), 1e-6, 1 - 1e-6)
        presence = _sigmoid(self.presence_slope * _logit(said.presence) + self.presence_shift)
        return _sigmoid(self.query_slope * _logit(query)) * presence

    def apply(self, checkpoint: Path) -> None:
        """Change the weights of a checkpoint folder."""
        file = checkpoint / "model.safetensors"
        tensors = load_file(file)
        for name in ("dot_product_scoring.text_proj.weight", "dot_product_scoring.text_proj.bias"):
            tensors[name] = tensors[name] * self.query_slope
        for name in ("detr_decoder.presence_head.layer3.weight", "detr_decoder.presence_head.layer3.bias"):
            tensors[name] = tensors[name] * self.presence_slope
        tensors["detr_decoder.presence_head.layer3.bias"] += self.presence_shift
        part = file.with_suffix(".part")
        save_file(tensors, part, metadata={"format": "pt"})
        part.replace(file)


def f1_where_enough_is_empty(said: dict[str, list[Said]], calibration: Calibration) -> float:
    """Return the mean F1 of the splits at the lowest threshold that leaves enough of one of them empty.

    Args:
        said: By split; the threshold suits the prompts of `THRESHOLD_SPLIT` that nothing answers.
        calibration: How scores are changed.
    """
    scores = {split: [calibration.scores(one) for one in answers] for split, answers in said.items()}
    chosen = zip(scores[THRESHOLD_SPLIT], said[THRESHOLD_SPLIT], strict=True)
    threshold = np.quantile([s.max(initial=0) for s, one in chosen if not one.iou.shape[1]], LEFT_EMPTY_AT_LEAST)
    return float(np.mean([_f1(scores[split], said[split], threshold) for split in said]))


def _f1(scores: list[np.ndarray], said: list[Said], threshold: float) -> float:
    matched = found = expected = 0
    for s, one in zip(scores, said, strict=True):
        if one.iou.shape[1]:
            kept = s > threshold
            matched, found = matched + len(match_ious(one.iou[kept])), found + int(kept.sum())
            expected += one.iou.shape[1]
    return 2 * matched / max(1, found + expected)


def best(said: dict[str, list[Said]]) -> tuple[Calibration, float, float]:
    """Return the mildest calibration with nearly the best F1, its F1, and the one without any calibration."""
    choices = [Calibration(*c) for c in itertools.product(QUERY_SLOPES, PRESENCE_SLOPES, PRESENCE_SHIFTS)]
    f1 = {choice: f1_where_enough_is_empty(said, choice) for choice in choices}
    least = max(f1.values()) - NEARLY
    chosen = min((choice for choice in choices if f1[choice] >= least), key=lambda choice: choice.strength)
    return chosen, f1[chosen], f1[Calibration()]


def ask(checkpoint: Path, split: str, first: int, scenes: int) -> list[Said]:
    """Put the questions about some scenes of a split."""
    torch.set_num_threads(1)
    predictor, vocabulary = Predictor.from_path(checkpoint, device="cpu", dtype="float32"), load_vocabulary()
    examiner = Examiner(vocabulary, load_atlas(vocabulary), predictor.image_size)
    said, image, features = [], None, None
    for question in examiner.questions(split, scenes, first):
        if question.image is not image:
            image = question.image
            (features,) = predictor.encode_images([image])
        (found,) = predictor.predict(features, [question.query], threshold=LOWEST)
        said.append(Said(found.presence, found.scores, mask_iou(masks_of(found, image.shape[:2]), question.masks)))
    return said


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _logit(p: np.ndarray | float) -> np.ndarray:
    p = np.clip(p, 1e-5, 1 - 1e-5)
    return np.log(p / (1 - p))


def main() -> None:
    """Calibrate a checkpoint in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=250, help="of each of the two splits")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    firsts = range(FIRST_SCENE, FIRST_SCENE + args.scenes, AT_ONCE)
    parts = [(split, first) for split in (THRESHOLD_SPLIT, OTHER_SPLIT) for first in firsts]
    said: dict[str, list[Said]] = {}
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        answers = pool.map(ask, itertools.repeat(args.checkpoint), *zip(*parts, strict=True), itertools.repeat(AT_ONCE))
        for (split, _), some in zip(parts, answers, strict=True):
            said.setdefault(split, []).extend(some)
    chosen, after, before = best(said)
    chosen.apply(args.checkpoint)
    print(f"{chosen}: F1 {before:.3f} -> {after:.3f} on {args.scenes} scenes of each split")


if __name__ == "__main__":
    main()
