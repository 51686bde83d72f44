"""Turn what a user names on a command line into a list of images: files, folders, globs, URLs and ``-``."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3seg.errors import InvalidRequestError
from s3seg.images import is_url

STDIN = "-"
"""The input that stands for one image on standard input."""


def expand(inputs: Iterable[str | Path], *, recursive: bool = False) -> list[str | Path]:
    """List the images that a user named.

    A folder gives the pictures directly in it (with ``recursive``, in its subfolders too), a glob the
    pictures that match (``**`` goes into subfolders), both sorted by path; hidden files and folders are left
    out. URLs, ``-`` and plain files are taken as they are: a file is not judged by its suffix, and one that
    is missing is reported when it is opened, so that it does not keep the others from being done. What is
    named twice is listed once.

    Args:
        inputs: What the user typed, in order.
        recursive: Whether folders are searched with their subfolders.

    Returns:
        Paths as ``Path``, URLs and ``"-"`` as ``str``, in the order in which they were named.

    Raises:
        InvalidRequestError: A folder or a glob has no picture, or there is no input at all.
    """
    found: dict[str, str | Path] = {}
    for item in inputs:
        for image in _expand_one(str(item), recursive=recursive):
            found.setdefault(_identity(image), image)
    if not found:
        raise InvalidRequestError("no image was given; name files, folders, globs, URLs or - (standard input)")
    return list(found.values())


def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes, dot included, of the formats that can be read (".png", ".jpg" ...)."""
    from PIL import Image

    from s3seg.images._encoded import UNREAD_FORMATS

    return frozenset(
        suffix
        for suffix, format_name in Image.registered_extensions().items()
        if format_name in Image.OPEN and format_name not in UNREAD_FORMATS
    )


def _expand_one(item: str, *, recursive: bool) -> list[str | Path]:
    if item == STDIN or is_url(item):
        return [item]
    path = Path(item).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError:  # a name too long, or a disk that is gone: opening it will say so
        return [path]
    if is_folder:
        return _in_folder(path, recursive=recursive)
    return _matching(path) if glob.has_magic(item) and not exists else [path]


def _in_folder(folder: Path, *, recursive: bool) -> list[str | Path]:
    suffixes = image_suffixes()
    below = sorted(path for path in _walk(folder) if path.suffix.lower() in suffixes)
    here = [path for path in below if path.parent == folder]
    if recursive and below:
        return [*below]
    if here:
        return [*here]
    if below:
        raise InvalidRequestError(
            f"no picture directly in the folder {folder}, but {len(below)} in its subfolders; "
            f'ask for them with recursive, or with the pattern "{folder / "**" / "*"}"'
        )
    raise InvalidRequestError(f"no picture in the folder {folder} (looked for {_examples(suffixes)})")


def _matching(pattern: Path) -> list[str | Path]:
    suffixes = image_suffixes()
    matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    images = [match for match in matches if match.is_file() and match.suffix.lower() in suffixes]
    if images:
        return [*images]
    if matches:
        raise InvalidRequestError(
            f'none of the {len(matches)} names that match "{pattern}" is a picture (looked for {_examples(suffixes)})'
        )
    raise InvalidRequestError(f'nothing matches "{pattern}"')


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _identity(image: str | Path) -> str:
    return image if isinstance(image, str) else os.path.normcase(image.resolve())


def _examples(suffixes: frozenset[str]) -> str:
    common = [suffix for suffix in (".png", ".jpg", ".webp", ".tif") if suffix in suffixes]
    return f"{', '.join(common)} and {len(suffixes) - len(common)} more suffixes"
