"""The pictures of a run: each with a name for its output files, and a mark that changes when it changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from s3seg.commands.arguments import distinct
from s3seg.errors import InvalidRequestError
from s3seg.images import sources as inputs


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a run.

    Attributes:
        source: A path, a URL or "-".
        name: What its output files begin with; no other picture of the run has it.
    """

    source: str | Path
    name: str

    @property
    def path(self) -> Path | None:
        """Where it lies, if it is a file."""
        return self.source if isinstance(self.source, Path) else None

    def open(self) -> Any:
        """What `Segmenter` takes."""
        return sys.stdin.buffer if self.source == inputs.STDIN else self.source

    def identity(self) -> list[Any] | None:
        """What changes when the picture does; None if that cannot be known without reading it."""
        if self.source == inputs.STDIN:
            return None
        if self.path is None:
            return [str(self.source)]
        try:
            status = self.path.stat()
        except OSError:
            return None
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]


def find(
    words: Sequence[str],
    *,
    recursive: bool,
    leave_out: Callable[[Path], bool],
    on_error: Callable[[str, InvalidRequestError], None],
) -> list[Picture]:
    """List the pictures that the user named, each once.

    Args:
        words: Files, folders, globs, URLs, "-".
        recursive: Search folders with their subfolders.
        leave_out: Says which files are not wanted, such as drawings of an earlier run.
        on_error: Told of a folder or a glob in which there is no picture.

    Raises:
        InvalidRequestError: "-" was named, and standard input is a terminal.
    """
    if inputs.STDIN in words and sys.stdin.isatty():
        raise InvalidRequestError("- reads a picture from standard input, and nothing is piped into it")
    sources: dict[str | Path, str | Path] = {}
    for word in words:
        try:
            found = inputs.expand([word], recursive=recursive)
        except InvalidRequestError as err:
            on_error(word, err)
            continue
        for source in found:
            if isinstance(source, str):
                sources.setdefault(source, source)
            elif not leave_out(source):
                sources.setdefault(source.resolve(), source)
    return [Picture(source, name) for source, name in zip(sources.values(), _names(sources.values()), strict=True)]


def _names(sources: Any) -> list[str]:
    """Name pictures by their file names; where two are the same, by as much of their paths as tells them apart.

    "a/cat.png" is "cat"; with "b/cat.png" in the same run they are "a_cat" and "b_cat"; with "a/cat.jpg" they are
    "cat-png" and "cat-jpg".
    """
    parts = [_parts(source) for source in sources]
    names = [stem for *_, stem, _ in parts]
    by_name = sorted(range(len(parts)), key=lambda i: names[i].casefold())
    for _, group in groupby(by_name, key=lambda i: names[i].casefold()):
        same = list(group)
        if len(same) > 1:
            for i, name in zip(same, _apart([parts[i] for i in same]), strict=True):
                names[i] = name
    return distinct(names)


def _apart(parts: Sequence[list[str]]) -> list[str]:
    """The shortest names that differ: with the suffix, else with more and more folders."""
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
    """Folders, stem and suffix (without its dot)."""
    if source == inputs.STDIN:
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
    except ValueError:  # no URL, such as http://[cat; opening it will say so
        return Path(), ""


def _safe(part: str) -> str:
    return "".join("-" if c in '<>:"/\\|?*%' or ord(c) < 32 else c for c in part)[:100]
