"""One document over all pictures of a run: JSON, JSON lines, COCO, CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3seg.commands import lines
from s3seg.commands.files import Files
from s3seg.commands.keys import request_of
from s3seg.commands.pictures import Picture
from s3seg.commands.terminal import Terminal
from s3seg.errors import InvalidRequestError
from s3seg.results.files import write_atomically
from s3seg.results.segmentation import Segmentation

_KEY = "request"  # the field that a line in a file has besides those of Segmentation.to_dict


def json_document(results: Iterable[Segmentation]) -> str:
    """An array with an object for each picture and prompt; `Segmentation.from_dict` reads each."""
    return lines.encode([result.to_dict() for result in results])


def coco_document(results: Iterable[Segmentation]) -> str:
    """One COCO dataset."""
    from s3seg.results import export

    return lines.encode(export.coco(results))


def csv_document(results: Iterable[Segmentation]) -> str:
    """A row for each instance."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["source", "prompt", "instance", "score", "x1", "y1", "x2", "y2", "area", "height", "width"])
    for result in results:
        for k, one in enumerate(result, start=1):
            box = (round(side, 2) for side in one.box)
            rows.writerow([result.source, one.prompt, k, round(one.score, 4), *box, one.area, *result.size])
    return text.getvalue()


Compose = Callable[[Iterable[Segmentation]], str]


class StdoutLines:
    """JSON lines on stdout, each as soon as it is known."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def has(self, picture: Picture, key: str) -> bool:
        """What was printed is gone."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Print a line for each prompt."""
        self._terminal.write("".join(lines.encode(result.to_dict()) for result in results))

    def finish(self, *, complete: bool) -> None:
        """Nothing is left to do."""


class StdoutDocument:
    """One document on stdout, after the last picture."""

    def __init__(self, compose: Compose, *, terminal: Terminal) -> None:
        self._compose = compose
        self._terminal = terminal
        self._results: list[Segmentation] = []

    def has(self, picture: Picture, key: str) -> bool:
        """What was printed is gone."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Keep the results, without the pictures' pixels."""
        self._results += [dataclasses.replace(result, image=None) for result in results]

    def finish(self, *, complete: bool) -> None:
        """Print the document."""
        self._terminal.write(self._compose(self._results))


class LinesFile:
    """A file of JSON lines that grows by a whole picture at a time, and can be resumed.

    Each line is a `Segmentation.to_dict` with the key of its request besides, so the file itself tells what is done.
    """

    def __init__(self, path: Path, keys: Mapping[str, str], *, prompts: int, resume: bool, files: Files) -> None:
        """Begin the file, or go on with it.

        Args:
            path: The file.
            keys: Of the pictures of the run, by their sources; see `s3seg.commands.keys`.
            prompts: How many there are; a picture is done when it has a line for each.
            resume: Keep what an earlier run of the same request has written; else the file is emptied.
            files: Guards the pictures.

        Raises:
            InvalidRequestError: The file holds results of another request.
            OSError: It cannot be written.
        """
        files.check(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._done: set[str] = set()
        if resume and path.is_file():
            self._keep_what_is_whole(keys, prompts)
        else:
            path.write_bytes(b"")
        files.written.append(path)

    def has(self, picture: Picture, key: str) -> bool:
        """Whether the file has all lines of this picture."""
        return key in self._done

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Append the picture's lines, all in one write."""
        if key not in self._done:
            lines.append(self._path, [result.to_dict() | {_KEY: key} for result in results])
            self._done.add(key)

    def finish(self, *, complete: bool) -> None:
        """Nothing is left to do."""

    def results(self, keys: Sequence[str]) -> Iterable[Segmentation]:
        """Read the results of some keys, in the order of the keys."""
        by_key: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
        for _, value in lines.read(self._path):
            if value[_KEY] in by_key:
                by_key[value[_KEY]].append(value)
        return (Segmentation.from_dict(value) for key in keys for value in by_key[key])

    def _keep_what_is_whole(self, keys: Mapping[str, str], prompts: int) -> None:
        """Drop a line that was cut off, a picture with a line too few, and pictures that have changed since."""
        requests = {request_of(key) for key in keys.values()}
        by_key: dict[str, list[bytes]] = {}
        for line, value in lines.read(self._path):
            key = str(value.get(_KEY, ""))
            if request_of(key) not in requests:
                raise InvalidRequestError(
                    f"{self._path} holds results of other prompts, options or another checkpoint; "
                    "name another file, or leave out --resume to begin it anew"
                )
            if keys.get(value["source"], key) == key:
                by_key.setdefault(key, []).append(line)
        whole = {key: group for key, group in by_key.items() if len(group) == prompts}
        kept = b"".join(line for group in whole.values() for line in group)
        if len(kept) != self._path.stat().st_size:
            write_atomically(self._path, kept)
        self._done = set(whole)


class DocumentFile:
    """One document in a file, composed after the last picture from a hidden file of lines beside it.

    The hidden file stays while something is missing (the run was stopped, or a picture failed), for ``--resume``.
    """

    def __init__(
        self,
        path: Path,
        compose: Compose,
        keys: Mapping[str, str],
        *,
        prompts: int,
        resume: bool,
        files: Files,
    ) -> None:
        files.check(path)
        self._path = path
        self._compose = compose
        self._files = files
        self._keys = list(keys.values())
        self._unfinished = path.with_name(f".{path.name}.unfinished.jsonl")
        self._lines = LinesFile(self._unfinished, keys, prompts=prompts, resume=resume, files=Files(()))

    def has(self, picture: Picture, key: str) -> bool:
        """Whether an unfinished run has done this picture."""
        return self._lines.has(picture, key)

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Keep the results until the end."""
        self._lines.add(picture, key, results)

    def finish(self, *, complete: bool) -> None:
        """Write the document."""
        self._files.write(self._path, self._compose(self._lines.results(self._keys)))
        if complete:
            self._unfinished.unlink()
