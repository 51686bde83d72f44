"""Writing the output files of a run: complete or not at all, and never over an input picture."""

from __future__ import annotations

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
        self._inputs = {picture.path.resolve() for picture in pictures if picture.path}
        self.written: list[Path] = []

    def check(self, path: Path) -> None:
        """Refuse a path that is an input picture.

        Raises:
            InvalidRequestError: The path is one of the pictures.
        """
        if path.resolve() in self._inputs:
            raise InvalidRequestError(
                f"{path} is an input picture and will not be overwritten; choose another output path"
            )

    def write(self, path: Path, data: bytes | str) -> None:
        """Write a file, completely or not at all. Creates its folder if needed.

        Raises:
            InvalidRequestError: The path is one of the pictures.
            OSError: It cannot be written.
        """
        self.check(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        self.written.append(path)
