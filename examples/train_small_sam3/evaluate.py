"""Measure a checkpoint on drawn scenes that it never saw, through the code that users run.

    python -m train_small_sam3.evaluate CHECKPOINT --out DIR --scenes 200

Prints the table, and writes it with the worst concepts as JSON, and a picture of predictions.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from s3seg.results import masks
from s3seg.sam3.predictor import Detections, Predictor

from .concepts import load_vocabulary
from .icons import load_atlas
from .metrics import Figures, Outcome, mask_iou, match_ious, summarise
from .splits import SPLITS, Examiner, Question

FLOOR = 0.1
"""Instances below this score are not looked at: no threshold is as low."""
THRESHOLDS = tuple(np.round(np.arange(0.2, 0.81, 0.05), 2).tolist())
LEFT_EMPTY_AT_LEAST = 0.98


@dataclass(frozen=True)
class Answer:
    """What a checkpoint said to a question, before the threshold."""

    split: str
    about: str
    scores: np.ndarray
    iou: np.ndarray
    """(N, M), of found masks with true ones."""

    def at(self, threshold: float) -> Outcome:
        """Return what remains above a threshold."""
        kept = self.scores > threshold
        return Outcome(self.iou.shape[1], int(kept.sum()), match_ious(self.iou[kept]))


def answer(predictor: Predictor, questions: Iterable[Question]) -> list[Answer]:
    """Put questions to a checkpoint; questions about one image follow each other, and it is encoded once."""
    answers, image, features = [], None, None
    for question in questions:
        if question.image is not image:
            image = question.image
            (features,) = predictor.encode_images([image])
        (found,) = predictor.predict(features, [question.query], threshold=FLOOR)
        iou = mask_iou(masks_of(found, image.shape[:2]), question.masks)
        answers.append(Answer(question.split, question.about, found.scores, iou))
    return answers


def masks_of(found: Detections, size: tuple[int, int]) -> np.ndarray:
    """Return found masks in full: bool (N, H, W)."""
    return np.array([masks.decode(rle) for rle in found.rles(size)]).reshape(-1, *size)


def choose_threshold(answers: list[Answer]) -> float:
    """Return the threshold with the best F1 among those that leave enough negatives empty."""
    figures = {t: summarise(a.at(t) for a in answers) for t in THRESHOLDS}
    cautious = {t: f for t, f in figures.items() if (f.left_empty or 0) >= LEFT_EMPTY_AT_LEAST} or figures
    return max(cautious, key=lambda t: cautious[t].f1 or 0)


def by_concept(answers: list[Answer], threshold: float) -> list[tuple[str, Figures]]:
    """Return the figures of each concept that was asked for and was there, worst first."""
    outcomes = defaultdict(list)
    for a in answers:
        if a.about and a.iou.shape[1]:
            outcomes[a.about].append(a.at(threshold))
    figures = [(about, summarise(found)) for about, found in outcomes.items()]
    return sorted(figures, key=lambda pair: (pair[1].f1 or 0, pair[0]))


def table(figures: dict[str, Figures]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| split | mask F1 | precision | recall | mean IoU | left empty | prompts |",
        "|---|---|---|---|---|---|---|",
    ]
    for split, f in figures.items():
        cells = [_number(v) for v in (f.f1, f.precision, f.recall, f.mean_iou, f.left_empty)]
        lines.append(f"| {split} | {' | '.join(cells)} | {f.prompts} |")
    return "\n".join(lines)


def evaluate(checkpoint: Path, *, scenes: int, splits: tuple[str, ...], threshold: float | None, dtype: str) -> dict:
    """Examine a checkpoint; the threshold, if none is given, is chosen on the validation split."""
    predictor = Predictor.from_path(checkpoint, device="cpu", dtype=dtype)
    vocabulary = load_vocabulary()
    examiner = Examiner(vocabulary, load_atlas(vocabulary), predictor.model.config.vision.image_size)
    if threshold is None:
        threshold = choose_threshold(answer(predictor, examiner.questions("validation", max(10, scenes // 2))))
    answers = {s: answer(predictor, examiner.questions(s, scenes)) for s in splits if s != "validation"}
    figures = {s: summarise(a.at(threshold) for a in found) for s, found in answers.items()}
    print(f"threshold {threshold}\n{table(figures)}")
    everything = [a for found in answers.values() for a in found]
    worst = by_concept(everything, threshold)
    print("worst:", ", ".join(f"{about} {f.f1:.2f}" for about, f in worst[:25]))
    return {
        "threshold": threshold, "dtype": dtype, "scenes_a_split": scenes,
        "splits": {s: asdict(f) for s, f in figures.items()},
        "concepts": {about: asdict(f) for about, f in worst},
    }  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Examine a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the figures and the picture")
    parser.add_argument("--scenes", type=int, default=200, help="of each split")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--threshold", type=float, help="instead of the one that suits the validation split best")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = evaluate(
        args.checkpoint, scenes=args.scenes, splits=tuple(args.splits), threshold=args.threshold, dtype=args.dtype
    )
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        from .grid import draw_grid

        draw_grid(args.checkpoint, args.out / "grid.png", threshold=figures["threshold"])


if __name__ == "__main__":
    main()
