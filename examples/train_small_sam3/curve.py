"""The curve of a run: its losses by images seen, as a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

SHOWN = ("loss", "choice", "concept", "patch_accuracy", "score", "presence_accuracy", "box_iou", "dice", "mask_leak")
WIDTH, HEIGHT, MARGIN, COLUMNS = 320, 180, 26, 3


def draw_curve(run: Path, out: Path) -> None:
    """Write a PNG with one small chart for each of `SHOWN`."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    charts = [_chart(name, [(line["images"], line[name]) for line in lines if name in line]) for name in SHOWN]
    rows = [np.concatenate(charts[i : i + COLUMNS], axis=1) for i in range(0, len(charts), COLUMNS)]
    cv2.imwrite(str(out), np.concatenate(rows))


def _chart(name: str, points: list[tuple[float, float]]) -> np.ndarray:
    chart = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    if len(points) < 2:
        return chart
    x, y = np.array(points).T
    top, bottom = (1.0, 0.0) if y.max() <= 1 else (float(np.quantile(y, 0.98)), float(y.min()))
    across = MARGIN + (x - x[0]) / (x[-1] - x[0]) * (WIDTH - 2 * MARGIN)
    up = HEIGHT - MARGIN - np.clip((y - bottom) / max(top - bottom, 1e-9), 0, 1) * (HEIGHT - 2 * MARGIN)
    cv2.rectangle(chart, (MARGIN, MARGIN), (WIDTH - MARGIN, HEIGHT - MARGIN), (225, 225, 225), 1)
    cv2.polylines(
        chart, [np.stack([across, up], axis=1).round().astype(np.int32)], False, (180, 90, 20), 1, cv2.LINE_AA
    )
    title = f"{name}: {y[-1]:.3g} after {x[-1] / 1000:.3g} k images  ({bottom:.3g} to {top:.3g})"
    cv2.putText(chart, title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (60, 60, 60), 1, cv2.LINE_AA)
    return chart


def main() -> None:
    """Draw the curve of a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    draw_curve(args.run, args.out)


if __name__ == "__main__":
    main()
