"""Expand what a user names on a command line (files, folders, globs, URLs and ``-``) to a list of pictures."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from s3seg.errors import InvalidRequestError
from s3seg.images import is_url

STDIN = "-"
"""The input that stands for one picture on standard input."""

_NEEDS_PILLOW_HEIF = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
_NOT_READ = frozenset({".avif", ".jxl"})  # .avif: where Pillow was built without it
_CAMERA_RAW = frozenset({".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"})


class LeftOut(StrEnum):
    """Why `expand` left out a file of a folder or of a glob."""

    NOT_A_PICTURE = "without the suffix of a picture"
    IN_SUBFOLDER = "in a subfolder"
    RAW_OF_A_PICTURE = "a camera's raw picture beside a developed one"


OnLeftOut = Callable[[Path, LeftOut], None]
"""Called with each file that was left out, and why; not with hidden files."""


def expand(
    inputs: Iterable[str | Path], *, recursive: bool = False, on_left_out: OnLeftOut | None = None
) -> list[str | Path]:
    """List the pictures that a user named.

    A folder gives the pictures in it (with ``recursive``, those in its subfolders too), a glob the pictures that match
    it (``**`` matches subfolders), both sorted by path. Hidden files and folders are left out, and so is a camera's
    raw picture beside a developed one of the same name. Linked folders are followed, except to a folder that contains
    them. A picture in a format that cannot be read here is listed too: opening it says what it needs.

    URLs, ``-`` and plain files are taken as they are, whatever their suffix. A missing file is reported when it is
    opened, so that the others can still be processed. A path that is named twice is listed once; two links to the same
    file are two pictures.

    Args:
        inputs: What the user typed, in order.
        recursive: Whether to search the subfolders of folders.
        on_left_out: Called with each file that is left out, unless an error is raised instead. Of subfolders that are
            not searched, only with the pictures.

    Returns:
        Paths as ``Path``, URLs and ``"-"`` as ``str``, in the order in which they were named.

    Raises:
        InvalidRequestError: A folder or a glob has no picture, a folder cannot be read, or there is no input.
    """
    found: dict[str, str | Path] = {}
    for item in inputs:
        for image in _expand_one(str(item), recursive=recursive, on_left_out=on_left_out or _ignore):
            found.setdefault(_identity(image), image)
    if not found:
        raise InvalidRequestError("no picture was given; name files, folders, globs, URLs or - (standard input)")
    return list(found.values())


def pictures_below(folder: Path) -> Iterator[Path]:
    """Iterate over the pictures that `expand` finds in a folder and its subfolders, with only one folder in memory.

    They are sorted within each folder; a folder's own pictures come before those of its subfolders.

    Raises:
        InvalidRequestError: The folder cannot be read.
    """
    try:
        next(folder.iterdir(), None)
    except OSError as err:
        raise InvalidRequestError(f"cannot read the folder {folder}: {err.strerror or err}") from err
    for parent, names in _folders(folder):
        yield from _pictures(Path(parent, name) for name in names)


def image_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of picture files (".png", ".jpg" ...), dot included.

    These are the formats that Pillow reads, and those that need more software, such as HEIC and camera raw.
    """
    from PIL import Image

    from s3seg.images._encoded import UNREAD_FORMATS

    readable = frozenset(
        suffix
        for suffix, format_name in Image.registered_extensions().items()
        if format_name in Image.OPEN and format_name not in UNREAD_FORMATS
    )
    return readable | _NEEDS_PILLOW_HEIF | _NOT_READ | _CAMERA_RAW


def _expand_one(item: str, *, recursive: bool, on_left_out: OnLeftOut) -> list[str | Path]:
    if item == STDIN or is_url(item):
        return [item]
    path = Path(item).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError:  # a name that is too long, or a disk that is gone: opening it will report that
        return [path]
    if is_folder:
        return [*_in_folder(path, recursive=recursive, on_left_out=on_left_out)]
    return [*_matching(path, on_left_out)] if glob.has_magic(item) and not exists else [path]


def _in_folder(folder: Path, *, recursive: bool, on_left_out: OnLeftOut) -> list[Path]:
    try:
        next(folder.iterdir(), None)
    except OSError as err:
        raise InvalidRequestError(f"cannot read the folder {folder}: {err.strerror or err}") from err
    files = sorted(_walk(folder))
    below = _pictures(files)
    found = below if recursive else [path for path in below if path.parent == folder]
    if found:
        _tell_left_out(files if recursive else [path for path in files if path.parent == folder], found, on_left_out)
        for path in below if len(found) < len(below) else ():
            if path.parent != folder:
                on_left_out(path, LeftOut.IN_SUBFOLDER)
        return found
    if below:
        raise InvalidRequestError(
            f"no picture directly in the folder {folder}, but {len(below)} in its subfolders; "
            f'include them with recursive, or with the pattern "{folder / "**" / "*"}"'
        )
    raise InvalidRequestError(f"no picture in the folder {folder} (looked for {_examples()})")


def _matching(pattern: Path, on_left_out: OnLeftOut) -> list[Path]:
    matches = list(_glob(pattern))
    files = sorted(match for match in matches if match.is_file())
    if images := _pictures(files):
        _tell_left_out(files, images, on_left_out)
        return images
    if matches:
        raise InvalidRequestError(
            f'none of the {len(matches)} names that match "{pattern}" is a picture (looked for {_examples()})'
        )
    raise InvalidRequestError(f'nothing matches "{pattern}"')


def _glob(pattern: Path) -> Iterator[Path]:
    """Yield what matches a pattern; of a pattern with ``**`` the files, without following links in circles.

    The standard library's glob follows such links until the system refuses, in every combination.
    """
    if "**" not in pattern.parts:
        yield from map(Path, glob.glob(str(pattern)))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return
    at = pattern.parts.index("**")
    for folder in _glob(Path(*pattern.parts[:at])) if at else [Path()]:
        for path in _walk(folder):
            if matches(path.relative_to(folder).parts, pattern.parts[at:]):
                yield path


def matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the parts of a path match those of a pattern, of which ``**`` matches any number."""
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == "**":
        return any(matches(parts[start:], tuple(rest)) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatch(parts[0], first) and matches(parts[1:], tuple(rest))


def _pictures(paths: Iterable[Path]) -> list[Path]:
    """Select the pictures, sorted by path, without raw pictures that have a developed one beside them."""
    suffixes = image_suffixes()
    found = [path for path in paths if path.suffix.lower() in suffixes]
    developed = {path.with_suffix("") for path in found if path.suffix.lower() not in _CAMERA_RAW}
    return sorted(
        path for path in found if path.suffix.lower() not in _CAMERA_RAW or path.with_suffix("") not in developed
    )


def _tell_left_out(files: Iterable[Path], found: Iterable[Path], on_left_out: OnLeftOut) -> None:
    kept = set(found)
    for path in files:
        if path not in kept:
            raw = path.suffix.lower() in _CAMERA_RAW
            on_left_out(path, LeftOut.RAW_OF_A_PICTURE if raw else LeftOut.NOT_A_PICTURE)


def _ignore(path: Path, why: LeftOut) -> None:
    """Do nothing."""


def _walk(folder: Path) -> Iterator[Path]:
    for parent, names in _folders(folder):
        yield from (Path(parent, name) for name in names)


def _folders(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and its subfolders, sorted, each with the names of its files."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _is_cycle(Path(parent, name)))
        yield parent, [name for name in names if not name.startswith(".")]


def _is_cycle(folder: Path) -> bool:
    """Return whether a folder is a link to one that its path passes through, so that following it would not end."""
    if not folder.is_symlink():
        return False
    path = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow the links
    real = [os.path.realpath(one) for one in (path, *path.parents)]
    return len(set(real)) < len(real)


def _identity(image: str | Path) -> str:
    """Return what two names of the same path have in common; links are not followed."""
    return image if isinstance(image, str) else os.path.normcase(os.path.abspath(image))  # noqa: PTH100


def _examples() -> str:
    common = (".png", ".jpg", ".webp", ".tif")
    return f"{', '.join(common)} and {len(image_suffixes()) - len(common)} more suffixes"
