"""Read the files of results that commands take: our own, and COCO datasets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from s3seg.results.segmentation import Segmentation


def read_results(path: Path, *, root: Path | None = None) -> list[Segmentation]:
    """Read a file of results or a COCO dataset.

    Args:
        path: What `Segmentation.load_all` or `Segmentation.from_coco` reads.
        root: Where the pictures of a COCO dataset are, if not where its file names say.

    Raises:
        InvalidRequestError: It holds something else.
        OSError: It cannot be read.
    """
    if not _is_coco(path):
        return Segmentation.load_all(path)
    results = Segmentation.from_coco(path, empty_results=True)
    if root is None:
        return results
    below = [(one, root / str(one.source)) for one in results]
    return [replace(one, source=str(picture)) if picture.is_file() else one for one, picture in below]


def _is_coco(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:  # JSON Lines, or not JSON at all
        return False
    return isinstance(value, dict) and "annotations" in value and "images" in value
