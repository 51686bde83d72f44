"""Draw the curves of a calibration: how precision, recall and F1 of each prompt depend on the threshold."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from s3seg.inference.calibration import Calibration, Curve
from s3seg.results.palette import RGB

_SCALE = 2  # drawn this many times as large, for smooth lines
_WIDTH, _HEIGHT, _GAP = 420, 300, 20
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 52, 16, 40
_COLUMNS = 3
_INK, _FAINT, _GRID = (30, 33, 40), (110, 115, 125), (226, 228, 232)
_PRECISION, _RECALL, _F1 = (52, 110, 220), (225, 120, 20), (30, 150, 80)


def plot(calibration: Calibration) -> Image.Image:
    """Draw a panel for each prompt, three in a row, with a line at the threshold that was chosen."""
    rows = -(-len(calibration.curves) // _COLUMNS)
    columns = min(_COLUMNS, len(calibration.curves))
    size = (columns * (_WIDTH + _GAP) + _GAP, rows * (_HEIGHT + _GAP) + _GAP)
    canvas = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), "white")
    for k, (prompt, curve) in enumerate(calibration.curves.items()):
        row, column = divmod(k, _COLUMNS)
        _panel(canvas, prompt, curve, _GAP + column * (_WIDTH + _GAP), _GAP + row * (_HEIGHT + _GAP))
    return canvas.resize(size, Image.Resampling.LANCZOS)


def _panel(canvas: Image.Image, prompt: str, curve: Curve, left: int, top: int) -> None:
    pen = ImageDraw.Draw(canvas)
    x1, x2 = left + _LEFT, left + _WIDTH - _RIGHT
    y1, y2 = top + _TOP, top + _HEIGHT - _BOTTOM

    def at(threshold: float, value: float) -> tuple[float, float]:
        return _SCALE * (x1 + threshold * (x2 - x1)), _SCALE * (y2 - value * (y2 - y1))

    def write(x: float, y: float, text: str, color: RGB, anchor: str, size: int = 12) -> float:
        font = ImageFont.load_default(size=size * _SCALE)
        pen.text((x * _SCALE, y * _SCALE), text, fill=color, font=font, anchor=anchor)
        return font.getlength(text) / _SCALE

    best = curve.best
    write(x1, top + 4, f"{prompt or 'object'}: threshold {best:.2f}"[:48], _INK, "la", 15)
    x = float(x1)
    for name, color in (("precision", _PRECISION), ("recall", _RECALL), ("F1", _F1)):
        x += write(x, top + 28, name, color, "la") + 12
    write(x2, top + 28, f"{curve.labelled} labelled in {curve.pictures} pictures", _FAINT, "ra")
    for tenth in range(0, 11, 2):
        value = tenth / 10
        pen.line([at(0, value), at(1, value)], fill=_GRID, width=_SCALE)
        write(x1 - 6, y2 - value * (y2 - y1), f"{value:.1f}", _FAINT, "rm")
        write(x1 + value * (x2 - x1), y2 + 5, f"{value:.1f}", _FAINT, "ma")
    write((x1 + x2) / 2, y2 + 21, "threshold", _FAINT, "ma")
    for values, color in ((curve.precision, _PRECISION), (curve.recall, _RECALL), (curve.f1, _F1)):
        pen.line([at(*point) for point in _steps(curve.thresholds, values)], fill=color, width=2 * _SCALE)
    pen.line([at(best, 0), at(best, 1)], fill=_INK, width=_SCALE)


def _steps(thresholds: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the corners of a curve that has a value from each threshold to the next, and the last to 1."""
    ends = [*thresholds[1:], 1.0]
    corners = zip(thresholds, ends, values, strict=True)
    return [point for start, end, value in corners for point in ((start, value), (end, value))]
