"""A picture of what a checkpoint finds in scenes that it never saw: shows what the numbers hide."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from s3seg.sam3.predictor import Predictor

from .concepts import load_vocabulary
from .evaluate import masks_of
from .icons import load_atlas
from .splits import Examiner, Question

CELL, CAPTION, COLUMNS = 224, 18, 8
ROWS = {"shapes and colours": 1, "seen styles": 2, "twemoji (held out)": 1, "examples": 1}
COLOURS = ((255, 60, 60), (60, 160, 255), (255, 200, 0), (180, 80, 255), (0, 210, 140), (255, 120, 200), (0, 220, 220))


def draw_grid(checkpoint: Path, out: Path, *, threshold: float) -> None:
    """Write a PNG: a row or two of each split, found instances outlined, prompt and counts below."""
    predictor = Predictor.from_path(checkpoint, device="cpu", dtype="float32")
    vocabulary = load_vocabulary()
    examiner = Examiner(vocabulary, load_atlas(vocabulary), predictor.model.config.vision.image_size)
    rows = []
    for split, count in ROWS.items():
        questions = _one_a_scene(examiner, split, count * COLUMNS)
        cells = [_cell(predictor, question, threshold) for question in questions]
        rows += [np.concatenate(cells[i : i + COLUMNS], axis=1) for i in range(0, len(cells), COLUMNS)]
    cv2.imwrite(str(out), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def _one_a_scene(examiner: Examiner, split: str, count: int) -> list[Question]:
    chosen: dict[int, Question] = {}
    for question in examiner.questions(split, 4 * count):
        if len(question.masks):
            chosen.setdefault(id(question.image), question)
        if len(chosen) == count:
            break
    return list(chosen.values())


def _cell(predictor: Predictor, question: Question, threshold: float) -> np.ndarray:
    (features,) = predictor.encode_images([question.image])
    (found,) = predictor.predict(features, [question.query], threshold=threshold)
    image = question.image.copy()
    for i, mask in enumerate(masks_of(found, image.shape[:2])):
        colour = COLOURS[i % len(COLOURS)]
        image[mask] = (0.6 * image[mask] + 0.4 * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, colour, 1)
    for box in question.query.boxes:
        x, y, width, height = np.array(box.cxcywh) * image.shape[0]
        corners = [(int(x - width / 2), int(y - height / 2)), (int(x + width / 2), int(y + height / 2))]
        cv2.rectangle(image, *corners, (255, 255, 255), 1)
    cell = np.full((CELL + CAPTION, CELL, 3), 255, np.uint8)
    cell[:CELL] = cv2.resize(image, (CELL, CELL))
    words = f"{question.query.text[:20]}: {len(found.scores)} of {len(question.masks)}"
    right = len(found.scores) == len(question.masks)
    cv2.putText(
        cell,
        words,
        (3, CELL + 13),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.42,
        (0, 110, 0) if right else (190, 0, 0),
        1,
        cv2.LINE_AA,
    )
    return cell


def main() -> None:
    """Draw the grid of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threshold", type=float, default=0.5)
    args = parser.parse_args()
    draw_grid(args.checkpoint, args.out, threshold=args.threshold)


if __name__ == "__main__":
    main()
