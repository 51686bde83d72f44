"""A record of the output files in a folder, for ``--resume``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from s3seg.commands.segment import jsonl

JOURNAL = ".s3seg-done.jsonl"


class Journal:
    """Which pictures are done in a folder: a hidden JSON Lines file, a line for each picture and kind of output.

    A line names the files that were written, with "/" between folders, each with size and modification time. It counts
    only while all of them are present and unchanged, so files that a later run rewrote with other options are not
    mistaken for the old ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / JOURNAL
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        for _, entry in jsonl.read(self._path):
            if {"kind", "name", "key", "files"} <= entry.keys() and _only_names_files_inside(entry["files"]):
                self._entries[entry["kind"], entry["name"]] = entry

    def has(self, kind: str, name: str, key: str) -> bool:
        """Return whether all files of a picture are present, made with this resume key."""
        entry = self._entries.get((kind, name))
        return entry is not None and entry["key"] == key and all(map(self._unchanged, entry["files"].items()))

    def owns(self, path: Path) -> bool:
        """Return whether a run wrote this file, and it is unchanged since."""
        try:
            name = (path.parent.resolve() / path.name).relative_to(self._folder.resolve()).as_posix()
        except ValueError:  # not in this folder
            return False
        stamps = (entry["files"][name] for entry in self._entries.values() if name in entry["files"])
        return any(self._unchanged((name, stamp)) for stamp in stamps)

    def add(self, kind: str, name: str, key: str, file_names: Sequence[str]) -> None:
        """Record the files of a picture, and delete those of an earlier run that are no longer among them."""
        previous = self._entries.get((kind, name), {"files": {}})["files"]
        for stale in previous.items():
            if stale[0] not in file_names and self._unchanged(stale):
                (self._folder / stale[0]).unlink()
        files = {file_name: _stamp(self._folder / file_name) for file_name in file_names}
        entry = {"kind": kind, "name": name, "key": key, "files": files}
        self._entries[kind, name] = entry
        jsonl.append(self._path, [entry])

    def _unchanged(self, file: tuple[str, Any]) -> bool:
        name, stamp = file
        try:
            return _stamp(self._folder / name) == stamp
        except OSError:
            return False


def _only_names_files_inside(files: object) -> bool:
    """Whether a record, which may be somebody else's, names files in its own folder only."""
    return isinstance(files, dict) and all(
        not PurePath(name).is_absolute() and ".." not in PurePath(name).parts for name in files
    )


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
