"""Draw the rooms of the package and what they import: docs/images/architecture.svg.

Run from the root of the repository, with the development dependencies installed:

    python docs/explanation/draw_architecture.py

Rows are the layers of the import contract in pyproject.toml; arrows come from the imports in the code. An arrow is left
out where a chain of other arrows leads to the same room.
"""

from __future__ import annotations

import re
import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
DRAWING = ROOT / "docs" / "images" / "architecture.svg"

CAPTIONS = {
    "cli": "the entry point",
    "commands": "what the commands do",
    "app": "settings, wiring",
    "web": "HTTP routes",
    "integrations": "other tools",
    "bulk": "many pictures",
    "adapters": "databases, stores, tokens",
    "client": "calls a service",
    "edge": "use cases of the API",
    "inference": "pictures in, results out",
    "testing": "suites for adapters",
    "sam3": "the network",
    "api": "bodies on the wire",
    "results": "masks, exports",
    "images": "reading pictures",
    "checkpoints": "finding weights",
    "tasks": "the domain, the ports",
    "decoding": "untrusted pictures",
    "errors": "every error",
}

_WIDTH, _BOX, _HEIGHT, _ROW, _LABELS = 960, 150, 46, 92, 30


def layers() -> list[list[str]]:
    """The rooms of each layer, the outermost first, as the import contract lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    return [re.findall(r"s3seg\.(\w+)", layer) for layer in contract["layers"]]


def imports() -> set[tuple[str, str]]:
    """Every (importer, imported) pair of rooms in the code."""
    graph = grimp.build_graph("s3seg")
    pairs = set()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            if module.count(".") and other.count("."):
                pairs.add((module.split(".")[1], other.split(".")[1]))
    return {(one, other) for one, other in pairs if one != other and "__main__" not in (one, other)}


def without_shortcuts(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs without those that a longer chain implies."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            here = waiting.pop()
            new = {other for one, other in pairs if one == here} - found
            found |= new
            waiting += new
        return found

    direct = {one: {other for start, other in pairs if start == one} for one, _ in pairs}
    implied = {(one, other) for one, others in direct.items() for step in others for other in reachable(step) & others}
    return pairs - implied


def svg() -> str:
    """The drawing."""
    pairs = imports()
    rooms = {name for pair in pairs for name in pair}
    rows = [present for row in layers() if (present := [name for name in row if name in rooms])]
    if missing := rooms - {name for row in rows for name in row}:
        raise SystemExit(f"add {', '.join(sorted(missing))} to the layers in pyproject.toml")
    if missing := rooms - CAPTIONS.keys():
        raise SystemExit(f"give {', '.join(sorted(missing))} a caption in {Path(__file__).name}")
    corner: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        gap = (_WIDTH - _LABELS - len(row) * _BOX) / (len(row) + 1)
        for place, name in enumerate(row):
            corner[name] = (_LABELS + gap + place * (_BOX + gap), 20 + number * _ROW)
    height = 20 + (len(rows) - 1) * _ROW + _HEIGHT + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">',
        "<title>The rooms of s3seg, by layer, and what they import</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number in range(len(rows)):
        middle = 20 + number * _ROW + _HEIGHT / 2
        lines.append(f'<text x="14" y="{middle + 5:g}" font-size="13" fill="#94a3b8">{len(rows) - number}</text>')
    for one, other in sorted(without_shortcuts(pairs)):
        (x1, y1), (x2, y2) = corner[one], corner[other]
        # spread the ends along the box, so that arrows to and from different sides do not meet
        lean = max(-1.0, min(1.0, (x2 - x1) / 500))
        start, end = (x1 + _BOX / 2 + lean * 50, y1 + _HEIGHT), (x2 + _BOX / 2 - lean * 50, y2 - 1)
        bend = min((end[1] - start[1]) / 2, _ROW / 2)
        lines.append(
            f'<path d="M{start[0]:.0f} {start[1]:.0f}C{start[0]:.0f} {start[1] + bend:.0f} '
            f'{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}" fill="none" stroke="#64748b" '
            'stroke-opacity=".75" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in sorted(corner.items()):
        middle = x + _BOX / 2
        lines += [
            f'<rect x="{x:.0f}" y="{y}" width="{_BOX}" height="{_HEIGHT}" rx="7" fill="#eff6ff" stroke="#3b82f6"/>',
            f'<text x="{middle:.0f}" y="{y + 20}" font-size="15" text-anchor="middle" fill="#0f172a">{name}</text>',
            f'<text x="{middle:.0f}" y="{y + 36}" font-size="11" text-anchor="middle" fill="#475569">'
            f"{escape(CAPTIONS[name])}</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    DRAWING.write_text(svg(), encoding="utf-8")
