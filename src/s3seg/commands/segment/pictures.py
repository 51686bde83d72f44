"""The pictures of a run: where each comes from, and the name of its output files."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from s3seg.commands.segment.picture_names import Found, picture_names
from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.images import is_url
from s3seg.images.sources import STDIN, LeftOut, expand

_RESULTS = (".json", ".jsonl", ".geojson", ".csv", ".txt")  # of the files that a run writes


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a run.

    Attributes:
        source: A path, a URL or "-".
        name: The beginning of its output files' names, with "/" between folders; distinct within the run.
    """

    source: str | Path
    name: str

    @property
    def path(self) -> Path | None:
        """The path of a picture file; None for a URL or standard input."""
        return self.source if isinstance(self.source, Path) else None

    def open(self) -> Any:
        """Return the picture in a form that `Segmenter` takes."""
        return sys.stdin.buffer if self.source == STDIN else self.source

    def check(self) -> None:
        """Raise the error of a file that is missing or holds results, without decoding one that is a picture.

        Raises:
            ImageDecodeError: There is no such file, its folder cannot be read, or it is the output of a run.
        """
        if self.path is None:
            return
        try:
            is_file = self.path.expanduser().is_file()
            self.path.expanduser().stat()
        except (OSError, ValueError, RuntimeError):
            from s3seg import images

            images.load(self.path)  # says what is wrong
            return
        if is_file and self.path.suffix.lower() in _RESULTS and _is_text(self.path):
            raise ImageDecodeError(
                f"{self.path}: this is a file of results or labels, not a picture; name the pictures themselves "
                "(in Python, s3seg.Segmentation reads results)"
            )

    def identity(self) -> list[Any] | None:
        """Return JSON values that change when the picture changes; None if only reading it could tell."""
        if self.source == STDIN:
            return None
        if self.path is None:
            return [str(self.source)]
        try:
            status = self.path.stat()
        except OSError:
            return None
        return [_absolute(self.path), str(self.path.resolve()), status.st_size, status.st_mtime_ns]


@dataclass(slots=True)
class LeftOutFiles:
    """The files of folders and globs that a run does not segment.

    Attributes:
        files: By the reason.
        outputs: How many were left out as outputs of an earlier run.
    """

    files: dict[LeftOut, list[Path]] = field(default_factory=dict)
    outputs: int = 0

    def add(self, path: Path, why: LeftOut) -> None:
        """Add a file."""
        self.files.setdefault(why, []).append(path)

    def notes(self) -> list[str]:
        """Describe the files in a line for each reason."""
        lines = [f"left out {_describe(paths)} {why}" for why, paths in self.files.items()]
        lines = [f"{line}; add -r to include them" if LeftOut.IN_SUBFOLDER in line else line for line in lines]
        if self.outputs:
            lines.append(f"left out {_files(self.outputs)} that an earlier run wrote")
        return lines


def find_pictures(
    inputs: Sequence[str],
    *,
    recursive: bool,
    exclude: Callable[[Path], bool],
    on_error: Callable[[InvalidRequestError], None],
    left_out: LeftOutFiles | None = None,
    reserved: Sequence[str] = (),
) -> list[Picture]:
    """List the pictures that the inputs name, each path once. Two links to the same file are two pictures.

    Args:
        inputs: Files, folders, globs, URLs, "-".
        recursive: Whether to search folders with their subfolders.
        exclude: Whether to leave out a file, such as an overlay of an earlier run.
        on_error: Called for a folder or glob without pictures; the message names it.
        left_out: Collects what is left out of folders and globs.
        reserved: Names that no picture gets.

    Raises:
        InvalidRequestError: The inputs include "-", and standard input is a terminal.
    """
    if STDIN in inputs and sys.stdin.isatty():
        raise InvalidRequestError("- reads a picture from standard input, and nothing is piped into it")
    left_out = left_out or LeftOutFiles()
    found: dict[str, Found] = {}
    others: dict[str, tuple[Path, LeftOut]] = {}

    def on_left_out(path: Path, why: LeftOut) -> None:
        if not exclude(path):
            others.setdefault(_absolute(path), (path, why))

    for name in inputs:
        try:
            expanded = expand([name], recursive=recursive, on_left_out=on_left_out)
        except InvalidRequestError as err:
            on_error(err)
            continue
        folder = _searched_folder(name)
        for source in expanded:
            if isinstance(source, str):
                found.setdefault(f"input {source}", Found(source))
            elif not exclude(source):
                found.setdefault(_absolute(source), Found(source, folder))
            else:
                left_out.outputs += 1
    for key, (path, why) in others.items():
        if key not in found:
            left_out.add(path, why)
    names = picture_names([*found.values()], reserved=reserved)
    return [Picture(one.source, name) for one, name in zip(found.values(), names, strict=True)]


def checked(pictures: Sequence[Picture], *, on_error: Callable[[ImageDecodeError], None]) -> list[Picture]:
    """Return the pictures without files that are missing or hold results, which are reported instead."""
    kept = []
    for picture in pictures:
        try:
            picture.check()
            kept.append(picture)
        except ImageDecodeError as err:
            on_error(err)
    return kept


def _searched_folder(name: str) -> Path | None:
    """The folder that an input searches: itself, or the part of a glob before its first wildcard."""
    path = Path(name).expanduser()
    try:
        if name == STDIN or is_url(name) or path.is_file():
            return None
        if path.is_dir():
            return path
    except (OSError, ValueError):
        return None
    fixed = [*takewhile(lambda part: not glob.has_magic(part), path.parts)]
    return Path(*fixed) if len(fixed) < len(path.parts) else None


def _absolute(path: Path) -> str:
    """What all spellings of a path have in common; links are not followed."""
    return os.path.normcase(os.path.abspath(path.expanduser()))  # noqa: PTH100


def _is_text(path: Path) -> bool:
    """Whether a file begins like text; no format of pictures does without control characters."""
    try:
        with path.expanduser().open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)


def _describe(paths: Sequence[Path]) -> str:
    """How many files, and their names if they are few, or else their suffixes."""
    if len(paths) <= 3:
        return f"{_files(len(paths))} ({', '.join(path.name for path in paths)})"
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in paths).most_common()
    shown = [f"{count} {suffix}" for suffix, count in suffixes[:5]]
    return f"{_files(len(paths))} ({', '.join(shown)}{' ...' if len(suffixes) > 5 else ''})"


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
