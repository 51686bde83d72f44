"""Writing the output files of a run: complete or not at all, never over an input picture, and none twice."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from s3seg.commands.segment.pictures import Picture
from s3seg.errors import InvalidRequestError
from s3seg.results.files import write_atomically


class OutputFiles:
    """Writes files, and remembers which.

    Args:
        pictures: The inputs of the run, which are never overwritten.

    Attributes:
        written: The paths written so far, in order.
    """

    def __init__(self, pictures: Iterable[Picture]) -> None:
        paths = [picture.path for picture in pictures if picture.path]
        self._inputs = {path.resolve() for path in paths}
        self._input_files = {inode for path in paths if (inode := _inode(path))}
        self._reserved: set[str] = set()
        self.written: list[Path] = []

    def reserve(self, path: Path) -> None:
        """Keep a path for one file of the run. `write` then refuses it, and writing it again, too.

        Raises:
            InvalidRequestError: The path is one of the pictures, or another output has it.
        """
        if path.resolve() in self._inputs or _inode(path) in self._input_files:
            raise InvalidRequestError(
                f"{path} is an input picture and will not be overwritten; choose another output path"
            )
        place = os.path.normcase(path.resolve())
        if place in self._reserved:
            raise InvalidRequestError(f"two outputs have the same path {path}; give each its own file or folder")
        self._reserved.add(place)

    def write(self, path: Path, data: bytes | str) -> None:
        """Reserve a path, and write it completely or not at all. Creates its folder if needed.

        Raises:
            InvalidRequestError: The path is one of the pictures, or another output has it.
            OSError: It cannot be written.
        """
        self.reserve(path)
        self.write_reserved(path, data)

    def write_reserved(self, path: Path, data: bytes | str) -> None:
        """Write a path that the caller has reserved.

        Raises:
            OSError: It cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        self.written.append(path)


def _inode(path: Path) -> tuple[int, int] | None:
    """What identifies a file under all its names, such as "A.png" and "a.png" where case does not count."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None
