"""Measure a checkpoint on drawn scenes that it never saw, through the code that users run.

    python -m train_small_sam3.evaluate CHECKPOINT --out DIR --scenes 200

Prints the table, and writes it with the worst concepts as JSON, and a picture of predictions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from s3seg.results import masks
from s3seg.sam3.click_predictor import ClickQuery
from s3seg.sam3.model import ImageFeatures
from s3seg.sam3.predictor import Detections, Predictor

from .concepts import load_vocabulary
from .icons import load_atlas
from .metrics import MATCH, Figures, Outcome, mask_iou, match_ious, summarise
from .splits import CLICKS, SPLITS, Examiner, Question

FLOOR = 0.1
"""Instances below this score are not looked at: no threshold is as low."""
THRESHOLDS = tuple(np.round(np.arange(0.2, 0.81, 0.01), 2).tolist())
LEFT_EMPTY_AT_LEAST = 0.98
AT_ONCE = 5
"""Scenes of a split that a process is given at a time; what has begun when the time is up is finished."""
BARS = {
    "shapes and colours": ("f1", 0.94), "held-out combinations": ("f1", 0.90), "seen styles": ("f1", 0.90),
    "twemoji (held out)": ("f1", 0.80), "openmoji (held out)": ("f1", 0.70), "colour and thing": ("f1", 0.85),
    "unknown words": ("left_empty", 0.98), "examples": ("f1", 0.85), "one click": ("mean_iou", 0.75),
    "three clicks": ("mean_iou", 0.85), "examples elsewhere": ("f1", 0.75),
    "photographed drawings": ("f1", 0.60),
    "photographs": ("left_empty", 0.97),
}  # fmt: skip
"""What a checkpoint should reach before it is shipped: a figure of each split, and its least value."""


@dataclass(frozen=True)
class Answer:
    """What a checkpoint said to a question, before the threshold."""

    split: str
    about: str
    scores: np.ndarray
    iou: np.ndarray
    """(N, M), of found masks with true ones."""
    presence: float = 1.0
    """The probability that the picture shows what is asked for, 0..1."""

    def at(self, threshold: float) -> Outcome:
        """Return what remains above a threshold."""
        kept = self.scores > threshold
        at_least = 0.0 if self.split in CLICKS else MATCH
        return Outcome(self.iou.shape[1], int(kept.sum()), match_ious(self.iou[kept], at_least))


def answer(predictor: Predictor, questions: Iterable[Question], *, floor: float = FLOOR) -> list[Answer]:
    """Put questions to a checkpoint; questions about one image follow each other, and it is encoded once.

    Args:
        predictor: The checkpoint.
        questions: What to ask.
        floor: Instances that score less are left out.
    """
    answers, image, features = [], None, None
    for question in questions:
        if question.image is not image:
            image = question.image
            (features,) = predictor.encode_images([image])
        if question.clicks:
            if predictor.has_clicks:
                found = _clicked(predictor, features, question)
                iou = mask_iou(found[None], question.masks)
                answers.append(Answer(question.split, question.about, np.ones(1), iou))
            continue
        query = question.query
        if question.example is not None:
            (shown,) = predictor.encode_images([question.example[0]])
            query = replace(query, examples=predictor.encode_examples(shown, [question.example[1]]))
        (found,) = predictor.predict(features, [query], threshold=floor)
        iou = mask_iou(masks_of(found, image.shape[:2]), question.masks)
        answers.append(Answer(question.split, question.about, found.scores, iou, found.presence))
    return answers


def _clicked(predictor: Predictor, features: ImageFeatures, question: Question) -> np.ndarray:
    """Click on a thing, and then into the middle of the largest mistake; return its mask, bool (H, W)."""
    true, found = question.masks[0], None
    points: list[tuple[float, float]] = []
    labels: list[bool] = []
    for _ in range(question.clicks):
        x, y = _middle(true if found is None else true != found, true)
        points.append(((x + 0.5) / true.shape[1], (y + 0.5) / true.shape[0]))
        labels.append(bool(true[y, x]))
        mask = None if found is None else found.astype(np.float32)
        (clicked,) = predictor.click(features, [ClickQuery(points, labels, mask=mask)])
        found = masks.decode(clicked.rles(true.shape)[0]).astype(bool)
    return found


def _middle(region: np.ndarray, otherwise: np.ndarray) -> tuple[int, int]:
    """Return column and row of the pixel of a region that is farthest from its edge."""
    inside = np.pad((region if region.any() else otherwise).astype(np.uint8), 1)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def masks_of(found: Detections, size: tuple[int, int]) -> np.ndarray:
    """Return found masks in full: bool (N, H, W)."""
    return np.array([masks.decode(rle) for rle in found.rles(size)]).reshape(-1, *size)


def choose_threshold(answers: list[Answer]) -> float:
    """Return the threshold with the best F1 among those that leave enough negatives empty, if there are any."""
    figures = {t: summarise(a.at(t) for a in answers) for t in THRESHOLDS}
    cautious = {t: f for t, f in figures.items() if (f.left_empty or 0) >= LEFT_EMPTY_AT_LEAST}
    if not cautious:
        print(f"no threshold leaves {LEFT_EMPTY_AT_LEAST:.0%} of the negatives empty; taking the one with the best F1")
        cautious = figures
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
    """Return the figures as a Markdown table, with the bar of each split and whether it is reached."""
    lines = [
        "| split | mask F1 | precision | recall | mean IoU | left empty | prompts | bar |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for split, f in figures.items():
        cells = [_number(v) for v in (f.f1, f.precision, f.recall, f.mean_iou, f.left_empty)]
        lines.append(f"| {split} | {' | '.join(cells)} | {f.prompts} | {_bar(split, f)} |")
    return "\n".join(lines)


def evaluate(
    checkpoint: Path, *, scenes: int, splits: tuple[str, ...], threshold: float | None, dtype: str, processes: int = 1,
    seconds: float = float("inf"), scene_size: int | None = None,
) -> dict:  # fmt: skip
    """Examine a checkpoint; the threshold, if none is given, is chosen on the validation split.

    Args:
        checkpoint: The folder.
        scenes: Of each split.
        splits: Names of `SPLITS`.
        threshold: Score above which an instance counts.
        dtype: Precision of the network.
        processes: How many of one thread each share the work; 1 does it in this process.
        seconds: When to stop, if not all scenes are done by then. The splits take turns, so that each has its share.
        scene_size: Side of the scenes in pixels; by default that of the network's input.
    """
    until = time.monotonic() + seconds
    parts = [("validation", first) for first in range(0, max(10, scenes // 2), AT_ONCE)] if threshold is None else []
    rest = [s for s in splits if s not in ("validation", "photographs")]
    parts += [(split, first) for first in range(0, scenes, AT_ONCE) for split in rest]
    if "photographs" in splits:
        parts.insert(len(rest), ("photographs", 0))
    answers = _examined((checkpoint, dtype, scene_size), parts, scenes, processes, until)
    if threshold is None:
        threshold = choose_threshold(answers.pop("validation", []))
    answers = {split: answers[split] for split in splits if answers.get(split)}
    figures = {s: summarise(a.at(threshold) for a in found) for s, found in answers.items()}
    print(f"threshold {threshold}\n{table(figures)}")
    if missing := [split for split in splits if split not in answers and split != "validation"]:
        print("not measured, for lack of time or of a click head:", ", ".join(missing))
    everything = [a for found in answers.values() for a in found]
    left_empty = summarise(a.at(threshold) for a in everything).left_empty
    print(f"negatives left empty, all splits together: {_number(left_empty)} (bar {LEFT_EMPTY_AT_LEAST})")
    worst = by_concept(everything, threshold)
    print("worst:", ", ".join(f"{about} {f.f1:.2f}" for about, f in worst[:25]))
    return {
        "threshold": threshold, "dtype": dtype, "scenes_a_split": scenes, "left_empty": left_empty,
        "splits": {s: asdict(f) for s, f in figures.items()},
        "bars": {s: {"figure": BARS[s][0], "at_least": BARS[s][1], "reached": reached(s, f)}
                 for s, f in figures.items() if s in BARS},
        "concepts": {about: asdict(f) for about, f in worst},
    }  # fmt: skip


def reached(split: str, figures: Figures) -> bool:
    """Return whether a split is at its bar."""
    figure, least = BARS[split]
    return (getattr(figures, figure) or 0) >= least


def _bar(split: str, figures: Figures) -> str:
    if split not in BARS:
        return ""
    return f"{BARS[split][1]:.2f} {'reached' if reached(split, figures) else 'missed'}"


@dataclass
class _Examination:
    """A checkpoint and those who examine it, in one process."""

    predictor: Predictor
    examiner: Examiner

    @classmethod
    def open(cls, checkpoint: Path, dtype: str, scene_size: int | None) -> _Examination:
        predictor = Predictor.from_path(checkpoint, device="cpu", dtype=dtype)
        vocabulary = load_vocabulary()
        return cls(predictor, Examiner(vocabulary, load_atlas(vocabulary), scene_size or predictor.image_size))

    def answers(self, part: tuple[str, int], scenes: int) -> list[Answer]:
        split, first = part
        return answer(self.predictor, self.examiner.questions(split, min(AT_ONCE, scenes - first), first))


_OF_THIS_PROCESS: list[_Examination] = []


def _open_in_process(*what: Any) -> None:
    torch.set_num_threads(1)
    _OF_THIS_PROCESS.append(_Examination.open(*what))


def _answers_in_process(part: tuple[str, int], scenes: int) -> list[Answer]:
    return _OF_THIS_PROCESS[0].answers(part, scenes)


def _examined(
    what: tuple[Path, str, int | None], parts: list[tuple[str, int]], scenes: int, processes: int, until: float
) -> dict[str, list[Answer]]:  # fmt: skip
    """Return the answers of each split, of those parts that were done in time; `what` is what an examination opens."""
    done: dict[tuple[str, int], list[Answer]] = {}
    lengths = {"validation": max(10, scenes // 2)}
    if processes == 1:
        examination = _Examination.open(*what)
        for part in parts:
            if time.monotonic() < until:
                done[part] = examination.answers(part, lengths.get(part[0], scenes))
    else:
        with ProcessPoolExecutor(processes, get_context("spawn"), _open_in_process, what) as pool:
            asked = {pool.submit(_answers_in_process, p, lengths.get(p[0], scenes)): p for p in parts}
            try:
                for future in as_completed(asked, timeout=_seconds_until(until)):
                    done[asked[future]] = future.result()
            except TimeoutError:
                pool.shutdown(wait=False, cancel_futures=True)
    answers: dict[str, list[Answer]] = {}
    for part in parts:
        if part in done:
            answers.setdefault(part[0], []).extend(done[part])
    return answers


def _seconds_until(moment: float) -> float | None:
    return None if moment == float("inf") else max(0.0, moment - time.monotonic())


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
    parser.add_argument("--scene-size", type=int, help="side of the scenes; by default that of the network's input")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="of one thread each, instead of threads")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop asking after so long")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = evaluate(
        args.checkpoint, scenes=args.scenes, splits=tuple(args.splits), threshold=args.threshold, dtype=args.dtype,
        processes=args.processes, seconds=args.seconds, scene_size=args.scene_size,
    )  # fmt: skip
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        from .grid import draw_grid

        draw_grid(args.checkpoint, args.out / "grid.png", threshold=figures["threshold"])


if __name__ == "__main__":
    main()
