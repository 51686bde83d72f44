"""Writing the files of a run: whole or not at all, and never over a picture that is being read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from s3seg.commands.pictures import Picture
from s3seg.errors import InvalidRequestError
from s3seg.results.files import write_atomically


class Files:
    """The output files of one run.

    Attributes:
        written: What was written so far, in order.
    """

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self._inputs = {picture.path.resolve() for picture in pictures if picture.path}
        self.written: list[Path] = []

    def check(self, path: Path) -> None:
        """Refuse to write over a picture of the run.

        Raises:
            InvalidRequestError: The path is one of the pictures.
        """
        if path.resolve() in self._inputs:
            raise InvalidRequestError(
                f"{path} is a picture of this run and will not be overwritten; name another output"
            )

    def write(self, path: Path, data: bytes | str) -> None:
        """Write a file, fully or not at all; its folder is made if need be.

        Raises:
            InvalidRequestError: The path is one of the pictures.
            OSError: It cannot be written.
        """
        self.check(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
        self.written.append(path)
