"""Where the results of a picture go: the screen, one file, or a folder that remembers what is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from s3seg.commands import lines
from s3seg.commands.files import Files
from s3seg.commands.pictures import Picture
from s3seg.commands.renderings import Rendering
from s3seg.commands.terminal import Terminal
from s3seg.results.segmentation import Segmentation

JOURNAL = ".s3seg-done.jsonl"


class Output(Protocol):
    """Takes the results of one picture after another.

    ``key`` stands for all that the results depend on: the picture, the prompts, the options, the checkpoint.
    """

    def has(self, picture: Picture, key: str) -> bool:
        """Whether an earlier run has left all of this picture's results here."""
        ...

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Take the results of all prompts on a picture."""
        ...

    def finish(self, *, complete: bool) -> None:
        """Called after the last picture; ``complete`` if none has failed."""
        ...


class Screen:
    """A table for people, on stdout."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._first = True

    def has(self, picture: Picture, key: str) -> bool:
        """Nothing on a screen lasts."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Print a table."""
        from s3seg.commands.table import instance_table

        if not self._first:
            self._terminal.show("")
        self._terminal.show(instance_table(results, header=self._first))
        self._first = False

    def finish(self, *, complete: bool) -> None:
        """Nothing is left to do."""


class OneFile:
    """One file, or stdout, for the one picture of a run. It is always made anew."""

    def __init__(self, path: Path | None, rendering: Rendering, *, files: Files, terminal: Terminal) -> None:
        self._path = path
        self._rendering = rendering
        self._files = files
        self._terminal = terminal

    def has(self, picture: Picture, key: str) -> bool:
        """A file that stands for itself does not tell of which options it is."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Write it."""
        for _, data in self._rendering(results):
            if self._path is not None:
                self._files.write(self._path, data)
            else:
                self._terminal.write(data if isinstance(data, str) else data.decode())

    def finish(self, *, complete: bool) -> None:
        """Nothing is left to do."""


class Journal:
    """What lies in a folder: a hidden file of JSON lines, one for each picture and kind of output.

    A line names the files that were written, each with its size and time. It counts as long as they are all there
    and unchanged; so a file that a later run has made anew with other options is not taken for the old one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / JOURNAL
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        for _, entry in lines.read(self._path):
            if {"kind", "name", "key", "files"} <= entry.keys():
                self._entries[entry["kind"], entry["name"]] = entry

    def has(self, kind: str, name: str, key: str) -> bool:
        """Whether all files of a picture are here, made with this key."""
        entry = self._entries.get((kind, name))
        return entry is not None and entry["key"] == key and all(map(self._unchanged, entry["files"].items()))

    def owns(self, path: Path) -> bool:
        """Whether a file was written by a run, and is unchanged since."""
        if path.parent.resolve() != self._folder.resolve():
            return False
        written = (entry["files"][path.name] for entry in self._entries.values() if path.name in entry["files"])
        return any(self._unchanged((path.name, mark)) for mark in written)

    def add(self, kind: str, name: str, key: str, names: Sequence[str]) -> None:
        """Note the files of a picture; files of an earlier run that are no longer among them are deleted."""
        before = self._entries.get((kind, name), {"files": {}})["files"]
        for stale in before.items():
            if stale[0] not in names and self._unchanged(stale):
                (self._folder / stale[0]).unlink()
        files = {written: _mark(self._folder / written) for written in names}
        entry = {"kind": kind, "name": name, "key": key, "files": files}
        self._entries[kind, name] = entry
        lines.append(self._path, [entry])

    def _unchanged(self, file: tuple[str, Any]) -> bool:
        name, mark = file
        try:
            return _mark(self._folder / name) == mark
        except OSError:
            return False


class Folder:
    """Files in a folder, named after their pictures."""

    def __init__(self, folder: Path, kind: str, rendering: Rendering, *, files: Files, journal: Journal) -> None:
        self._folder = folder
        self._kind = kind
        self._rendering = rendering
        self._files = files
        self._journal = journal

    def has(self, picture: Picture, key: str) -> bool:
        """Whether the journal knows these very results, and the files are there."""
        return self._journal.has(self._kind, picture.name, key)

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Write the picture's files, then note that they are whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        names = []
        for ending, data in self._rendering(results):
            names.append(picture.name + ending)
            self._files.write(self._folder / names[-1], data)
        self._journal.add(self._kind, picture.name, key, names)

    def finish(self, *, complete: bool) -> None:
        """Nothing is left to do."""


def _mark(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
