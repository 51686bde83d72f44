"""Names for the output files of pictures: they mirror the pictures' folders, and are distinct and safe."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from s3seg.commands.segment.file_names import distinct, fitted, safe
from s3seg.images.sources import STDIN


@dataclass(frozen=True, slots=True)
class Found:
    """A picture, and the folder that was searched for it.

    Attributes:
        source: A path, a URL or "-".
        folder: The folder or the fixed part of the glob that the user named; None for a picture that was named itself.
    """

    source: str | Path
    folder: Path | None = None


def picture_names(found: Sequence[Found], *, reserved: Sequence[str] = ()) -> list[str]:
    """Name pictures by their paths below the folder that was searched, without suffixes: "a/cat" for "a/cat.png".

    A picture that was named itself is called after its file only: "cat". If two pictures from different folders would
    have the same name, all are named by their paths below the folder that they have in common ("a/cat" and "b/cat").
    "cat.png" and "cat.jpg" of one folder are "cat-png" and "cat-jpg".

    Args:
        found: The pictures of a run.
        reserved: Names that no picture gets, since the output needs them for itself.

    Returns:
        Names with "/" between folders, in the same order.
    """
    places = [_place(one) for one in found]
    skipped = [place.skipped for place in places]
    for kind in {place.kind for place in places}:
        same_kind = [i for i, place in enumerate(places) if place.kind == kind]
        if _collide([places[i] for i in same_kind]):
            in_common = _common([places[i].parts[: skipped[i]] for i in same_kind])
            for i in same_kind:
                skipped[i] = in_common
    plain = ["/".join([*place.parts[skip:], place.stem]) for place, skip in zip(places, skipped, strict=True)]
    count = Counter(name.casefold() for name in plain)
    wanted = [
        f"{name}-{place.suffix}" if count[name.casefold()] > 1 and place.suffix else name
        for name, place in zip(plain, places, strict=True)
    ]
    order = sorted(range(len(wanted)), key=lambda i: wanted[i] != plain[i])  # pictures that keep their names go first
    names = distinct([wanted[i] for i in order], reserved=reserved)
    return [name for _, name in sorted(zip(order, names, strict=True))]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a picture is.

    Attributes:
        kind: Places of different kinds have no folder in common.
        parts: All folders that contain it, the outermost first.
        skipped: How many of them its name leaves out.
        stem: Its file name without the suffix.
        suffix: Its suffix without the dot.
    """

    kind: Hashable
    parts: tuple[str, ...]
    skipped: int
    stem: str
    suffix: str


def _place(found: Found) -> _Place:
    source = found.source
    if source == STDIN:
        return _Place("stdin", (), 0, "stdin", "")
    if isinstance(source, str):
        file, parts = _split_url(source)
        skipped, kind = len(parts), "URL"
    else:
        file = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would name a link after its target
        parts = file.parts[1:-1]
        skipped, kind = len(parts), f"file {file.anchor}"
        if found.folder is not None:
            skipped = len(Path(os.path.abspath(found.folder)).parts) - 1  # noqa: PTH100
    folders = tuple(fitted(safe(part), "") for part in parts)
    return _Place(kind, folders, skipped, safe(file.stem or "picture"), safe(file.suffix[1:]))


def _split_url(url: str) -> tuple[PurePosixPath, tuple[str, ...]]:
    """The path of a URL, and its host with the folders of the path."""
    try:
        parts = urlsplit(url)
        path, host = PurePosixPath(parts.path), parts.hostname or ""
    except ValueError:  # not a URL, such as http://[cat; opening it reports the error
        return PurePosixPath(), ()
    return path, (host, *(part for part in path.parts[:-1] if part != path.root))


def _collide(places: Sequence[_Place]) -> bool:
    """Whether two pictures of the same name come from different folders."""
    origins: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for place in places:
        name = "/".join([*place.parts[place.skipped :], place.stem]).casefold()
        origins[name].add(place.parts)
    return any(len(folders) > 1 for folders in origins.values())


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """How many of their first parts all folders share."""
    shared = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return shared
