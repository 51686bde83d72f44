"""Rescale the scores of a checkpoint to suit the rule by which its threshold is chosen.

    python -m train_small_sam3.calibrate CHECKPOINT --processes 2
    python -m train_small_sam3.calibrate CHECKPOINT --undo 2.0 1.4 1.0

A score is the product of two probabilities, that of the query and that of the presence. Training does not optimise how
steep each is: that is chosen here, on other scenes of two splits of the evaluation, and folded into the last layers of
both heads. Scores change, and nothing else. To train further from a calibrated checkpoint, undo that first.
"""

from __future__ import annotations

import argparse
import itertools
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from s3seg.sam3.predictor import Predictor

from .concepts import load_vocabulary
from .evaluate import LEFT_EMPTY_AT_LEAST, THRESHOLDS, Answer, answer
from .icons import load_atlas
from .metrics import summarise
from .splits import Examiner

THRESHOLD_SPLIT, OTHER_SPLIT = "validation", "colour and thing"
"""The split on which the evaluation chooses its threshold, and one of prompts that are rare in it."""
FIRST_SCENE = 1000
"""Far beyond the scenes that the evaluation uses."""
TOLERANCE = 0.006
"""How much F1 is given up for scores that are less steep: where all are near 0 or 1, a threshold changes nothing."""
SCORE_FLOOR = 0.01
QUERY_SLOPES = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
PRESENCE_SLOPES = (0.7, 1.0, 1.4, 2.0)
PRESENCE_SHIFTS = (-1.0, 0.0, 1.0, 2.0)
AT_ONCE = 10


@dataclass(frozen=True)
class Calibration:
    """How logits are changed: presence * presence_slope + presence_shift, and query * query_slope."""

    query_slope: float = 1.0
    presence_slope: float = 1.0
    presence_shift: float = 0.0

    @property
    def steepness(self) -> tuple[float, float]:
        """Return how far the slopes are from changing nothing, and then the shift."""
        return math.hypot(math.log(self.query_slope), math.log(self.presence_slope)), abs(self.presence_shift)

    @property
    def inverse(self) -> Calibration:
        """Return the calibration that undoes this one."""
        return Calibration(1 / self.query_slope, 1 / self.presence_slope, -self.presence_shift / self.presence_slope)

    def apply_to(self, answer: Answer) -> Answer:
        """Return the answer that a checkpoint gives after the calibration."""
        query = np.clip(answer.scores / max(answer.presence, 1e-6), 1e-6, 1 - 1e-6)
        presence = _sigmoid(self.presence_slope * _logit(answer.presence) + self.presence_shift)
        return replace(answer, scores=_sigmoid(self.query_slope * _logit(query)) * presence, presence=float(presence))

    def write_to(self, checkpoint: Path) -> None:
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


def f1_where_enough_is_empty(answers: dict[str, list[Answer]], calibration: Calibration) -> float:
    """Return the mean F1 of the splits at the lowest threshold that leaves enough of one of them empty.

    Args:
        answers: By split; the threshold suits the prompts of `THRESHOLD_SPLIT` that nothing answers.
        calibration: How scores are changed.

    Returns:
        The F1, or 0 where none of the thresholds that the evaluation tries leaves enough empty.
    """
    changed = {split: [calibration.apply_to(a) for a in some] for split, some in answers.items()}
    highest = [a.scores.max(initial=0) for a in changed[THRESHOLD_SPLIT] if not a.iou.shape[1]]
    threshold = next((t for t in THRESHOLDS if np.mean(np.array(highest) <= t) >= LEFT_EMPTY_AT_LEAST), None)
    if threshold is None:
        return 0.0
    return float(np.mean([summarise(a.at(threshold) for a in some).f1 or 0 for some in changed.values()]))


def best(answers: dict[str, list[Answer]]) -> tuple[Calibration, float, float]:
    """Return the least steep calibration with nearly the best F1, its F1, and the F1 without any calibration."""
    choices = [Calibration(*c) for c in itertools.product(QUERY_SLOPES, PRESENCE_SLOPES, PRESENCE_SHIFTS)]
    f1 = {choice: f1_where_enough_is_empty(answers, choice) for choice in choices}
    least = max(f1.values()) - TOLERANCE
    chosen = min((choice for choice in choices if f1[choice] >= least), key=lambda choice: choice.steepness)
    return chosen, f1[chosen], f1[Calibration()]


def ask(checkpoint: Path, split: str, first: int, scenes: int) -> list[Answer]:
    """Put the questions about some scenes of a split."""
    torch.set_num_threads(1)
    predictor, vocabulary = Predictor.from_path(checkpoint, device="cpu", dtype="float32"), load_vocabulary()
    examiner = Examiner(vocabulary, load_atlas(vocabulary), predictor.image_size)
    return answer(predictor, examiner.questions(split, scenes, first), floor=SCORE_FLOOR)


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
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="print the figures, and change nothing")
    mode.add_argument(
        "--undo", nargs=3, type=float, metavar=("QUERY_SLOPE", "PRESENCE_SLOPE", "PRESENCE_SHIFT"),
        help="take back a calibration that was printed before, and choose none",
    )  # fmt: skip
    args = parser.parse_args()
    if args.undo:
        Calibration(*args.undo).inverse.write_to(args.checkpoint)
        return
    if args.scenes < 1:
        parser.error(f"--scenes must be at least 1, not {args.scenes}")
    end = FIRST_SCENE + args.scenes
    firsts = range(FIRST_SCENE, end, AT_ONCE)
    parts = [(s, first, min(AT_ONCE, end - first)) for s in (THRESHOLD_SPLIT, OTHER_SPLIT) for first in firsts]
    answers: dict[str, list[Answer]] = {}
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        found = pool.map(ask, itertools.repeat(args.checkpoint), *zip(*parts, strict=True))
        for (split, *_), some in zip(parts, found, strict=True):
            answers.setdefault(split, []).extend(some)
    chosen, after, before = best(answers)
    if not args.dry_run:
        chosen.write_to(args.checkpoint)
    print(f"{chosen}: F1 {before:.3f} -> {after:.3f} on {args.scenes} scenes of each split")


if __name__ == "__main__":
    main()
