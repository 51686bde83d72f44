"""Names for the output files of pictures: short, safe on every system, and distinct within a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

from s3seg.commands.segment.file_names import distinct
from s3seg.images.sources import STDIN


def picture_names(sources: Collection[str | Path]) -> list[str]:
    """Name pictures by their file names, with as much of their paths as makes the names distinct.

    "a/cat.png" is "cat"; together with "b/cat.png" they are "a_cat" and "b_cat"; together with "a/cat.jpg" they are
    "cat-png" and "cat-jpg".

    Args:
        sources: Paths, URLs or "-".
    """
    parts = [_parts(source) for source in sources]
    names = [stem for *_, stem, _ in parts]
    by_name = sorted(range(len(parts)), key=lambda i: names[i].casefold())
    for _, group in groupby(by_name, key=lambda i: names[i].casefold()):
        same = list(group)
        if len(same) > 1:
            for i, name in zip(same, _shortest_distinct([parts[i] for i in same]), strict=True):
                names[i] = name
    return distinct(names)


def _shortest_distinct(parts: Sequence[list[str]]) -> list[str]:
    """The shortest names that differ: first with the suffix, then with more and more folders."""
    for folders in range(max(map(len, parts)) - 1):
        for with_suffix in (False, True):
            names = [
                "_".join([*head[max(0, len(head) - folders) :], stem])
                + (f"-{suffix}" if with_suffix and suffix else "")
                for *head, stem, suffix in parts
            ]
            if len({name.casefold() for name in names}) == len(names):
                return names
    return ["_".join([*head, stem]) for *head, stem, _ in parts]


def _parts(source: str | Path) -> list[str]:
    """Folders, stem, and suffix without its dot."""
    if source == STDIN:
        return ["stdin", ""]
    if isinstance(source, str):
        path, host = _path_and_host(source)
        folders = [host, *path.parts[1:-1]]
    else:
        path = source.resolve()
        folders = [part for part in path.parts[:-1] if part != path.anchor]
    return [
        *(_safe(folder) for folder in folders),
        _safe(path.stem) or "picture",
        _safe(path.suffix.lstrip(".")),
    ]


def _path_and_host(url: str) -> tuple[Path, str]:
    try:
        parts = urlsplit(url)
        return Path(parts.path), parts.hostname or ""
    except ValueError:  # not a URL, such as http://[cat; opening it reports the error
        return Path(), ""


def _safe(part: str) -> str:
    return "".join("-" if c in '<>:"/\\|?*%' or ord(c) < 32 else c for c in part)[:100]
