"""Outputs that take a picture's results at once: one file, or files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from s3seg.commands.segment.file_names import fitted
from s3seg.commands.segment.formats import PictureFormat
from s3seg.commands.segment.journal import Journal
from s3seg.commands.segment.output_files import OutputFiles
from s3seg.commands.segment.pictures import Picture
from s3seg.commands.terminal import Terminal
from s3seg.results.segmentation import Segmentation


class Output(Protocol):
    """Takes the results of one picture after another. ``key`` is the picture's resume key."""

    def has(self, picture: Picture, key: str) -> bool:
        """Return whether an earlier run has left all results of this picture, made with this key."""
        ...

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Take the results of a picture, one for each prompt.

        Raises:
            OSError: They cannot be written.
        """
        ...

    def finish(self, *, complete: bool) -> None:
        """End the output after the last picture; ``complete`` if none has failed."""
        ...


class SingleOutput:
    """One file, or stdout, for the only picture of a run. Never resumed: the file does not tell its options."""

    def __init__(self, path: Path | None, render: PictureFormat, *, files: OutputFiles, terminal: Terminal) -> None:
        if path is not None:
            files.reserve(path)
        self._path = path
        self._render = render
        self._files = files
        self._terminal = terminal

    def has(self, picture: Picture, key: str) -> bool:
        """Return False."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Write the file."""
        for _, data in self._render(results):
            if self._path is not None:
                self._files.write_reserved(self._path, data)
            else:
                self._terminal.write(data if isinstance(data, str) else data.decode())

    def finish(self, *, complete: bool) -> None:
        """Do nothing."""


class FolderOutput:
    """Files in a folder that mirror the folders of their pictures, recorded in the folder's journal."""

    def __init__(self, folder: Path, kind: str, render: PictureFormat, *, files: OutputFiles, journal: Journal) -> None:
        self._folder = folder
        self._kind = kind
        self._render = render
        self._files = files
        self._journal = journal

    def has(self, picture: Picture, key: str) -> bool:
        """Return whether the journal has this picture and key, and the files are unchanged."""
        return self._journal.has(self._kind, picture.name, key)

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Write the picture's files, then record them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        *folders, stem = picture.name.split("/")
        names = []
        for ending, data in self._render(results):
            names.append("/".join([*folders, fitted(stem, ending)]))
            self._files.write(self._folder / names[-1], data)
        self._journal.add(self._kind, picture.name, key, names)

    def finish(self, *, complete: bool) -> None:
        """Do nothing."""
