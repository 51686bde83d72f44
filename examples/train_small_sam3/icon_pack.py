"""All icons in one file: a line of JSON that lists them, then their WebP images end to end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

QUALITY, LOSSLESS = 90, 101


def write(file: Path, drawings: Iterable[tuple[str, str, np.ndarray, bool]], *, made_for: str) -> None:
    """Pack drawings.

    Args:
        file: Where to.
        drawings: Icon, style, premultiplied RGBA (K, K, 4) uint8, and whether its pixels must stay as they are. Others
            are compressed with a little loss of colour, unless they are smaller without; alpha stays exact.
        made_for: A text that is kept with them, see `made_for`.
    """
    index, images = [], []
    for icon, style, pixels, exact in drawings:
        bgra = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA)
        qualities = (LOSSLESS,) if exact else (QUALITY, LOSSLESS)
        tried = [cv2.imencode(".webp", bgra, [cv2.IMWRITE_WEBP_QUALITY, q])[1].tobytes() for q in qualities]
        images.append(min(tried, key=len))
        index.append((icon, style, len(images[-1])))
    file.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"made_for": made_for, "drawings": index}).encode()
    part = file.with_suffix(".part")
    part.write_bytes(head + b"\n" + b"".join(images))
    part.replace(file)


def read(file: Path) -> tuple[str, list[tuple[str, str]], list[np.ndarray]]:
    """Return what a pack was made for, icon and style of each drawing, and its premultiplied RGBA pixels."""
    content = file.read_bytes()
    end = content.index(b"\n")
    head = json.loads(content[:end])
    drawings = [(icon, style) for icon, style, _ in head["drawings"]]
    lengths = [length for _, _, length in head["drawings"]]
    places = end + 1 + np.cumsum([0, *lengths[:-1]]) if lengths else []

    def decoded(length: int, place: int) -> np.ndarray:
        image = np.frombuffer(content, np.uint8, length, place)
        rgba = cv2.cvtColor(cv2.imdecode(image, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        rgba[..., :3] = np.minimum(rgba[..., :3], rgba[..., 3:])  # what is transparent may have any colour in a WebP
        return rgba

    with ThreadPoolExecutor() as threads:
        return head["made_for"], drawings, list(threads.map(decoded, lengths, places))


def made_for(file: Path) -> str | None:
    """Return what a pack was made for, or None if there is no pack."""
    if not file.exists():
        return None
    with file.open("rb") as stream:
        return json.loads(stream.readline())["made_for"]
