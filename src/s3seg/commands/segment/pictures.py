"""The pictures of a run: where each comes from, and the name of its output files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3seg.commands.segment.picture_names import picture_names
from s3seg.errors import InvalidRequestError
from s3seg.images.sources import STDIN, expand


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a run.

    Attributes:
        source: A path, a URL or "-".
        name: The beginning of its output files' names, distinct within the run.
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
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]


def find_pictures(
    inputs: Sequence[str],
    *,
    recursive: bool,
    exclude: Callable[[Path], bool],
    on_error: Callable[[InvalidRequestError], None],
) -> list[Picture]:
    """List the pictures that the inputs name, each once.

    Args:
        inputs: Files, folders, globs, URLs, "-".
        recursive: Whether to search folders with their subfolders.
        exclude: Whether to leave out a file, such as an overlay of an earlier run.
        on_error: Called for a folder or glob without pictures; the message names it.

    Raises:
        InvalidRequestError: The inputs include "-", and standard input is a terminal.
    """
    if STDIN in inputs and sys.stdin.isatty():
        raise InvalidRequestError("- reads a picture from standard input, and nothing is piped into it")
    sources: dict[str | Path, str | Path] = {}
    for name in inputs:
        try:
            expanded = expand([name], recursive=recursive)
        except InvalidRequestError as err:
            on_error(err)
            continue
        for source in expanded:
            if isinstance(source, str):
                sources.setdefault(source, source)
            elif not exclude(source):
                sources.setdefault(source.resolve(), source)
    return [
        Picture(source, name) for source, name in zip(sources.values(), picture_names(sources.values()), strict=True)
    ]
