"""Outputs that hold the results of all pictures: JSON Lines, or one document."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3seg.commands.segment import jsonl
from s3seg.commands.segment.file_names import fitted
from s3seg.commands.segment.formats import DocumentFormat
from s3seg.commands.segment.output_files import OutputFiles
from s3seg.commands.segment.pictures import Picture
from s3seg.commands.segment.resume_keys import request_part
from s3seg.commands.terminal import Terminal
from s3seg.errors import InvalidRequestError
from s3seg.results.files import write_atomically
from s3seg.results.segmentation import Segmentation

_UNFINISHED = ".unfinished.jsonl"
_KEY = "request"  # the field of the resume key, added to those of Segmentation.to_dict


class JsonlStdout:
    """JSON Lines on stdout, each line as soon as its picture is done."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def has(self, picture: Picture, key: str) -> bool:
        """Return False: stdout cannot be resumed."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Print a line for each prompt."""
        self._terminal.write("".join(jsonl.encode(result.to_dict()) for result in results))

    def finish(self, *, complete: bool) -> None:
        """Do nothing."""


class DocumentStdout:
    """One document on stdout, after the last picture."""

    def __init__(self, render: DocumentFormat, *, terminal: Terminal) -> None:
        self._render = render
        self._terminal = terminal
        self._results: list[Segmentation] = []

    def has(self, picture: Picture, key: str) -> bool:
        """Return False: stdout cannot be resumed."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Keep the results, without the pixels of the picture."""
        self._results += [dataclasses.replace(result, image=None) for result in results]

    def finish(self, *, complete: bool) -> None:
        """Print the document."""
        self._terminal.write(self._render(self._results))


class JsonlFile:
    """A JSON Lines file that grows by one picture at a time, and can be resumed.

    Each line is a `Segmentation.to_dict` with its resume key, so the file itself shows which pictures are done.
    """

    def __init__(self, path: Path, keys: Mapping[str, str], *, prompts: int, resume: bool, files: OutputFiles) -> None:
        """Continue the file, or make sure that it can be written: what an earlier run left goes with the first picture.

        Args:
            path: The file.
            keys: The resume keys of the run's pictures, by their sources.
            prompts: How many lines a finished picture has.
            resume: Keep the lines of an earlier run of the same request; otherwise the first picture replaces them.
            files: Protects the input pictures, and the paths of other outputs.

        Raises:
            InvalidRequestError: The file holds results of another request.
            OSError: It cannot be written.
        """
        files.reserve(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._files = files
        self._done: set[str] = set()
        self._replaces = not (resume and path.is_file())
        if self._replaces:
            path.open("ab").close()
        else:
            self._keep_finished_pictures(keys, prompts)
            files.written.append(path)

    def has(self, picture: Picture, key: str) -> bool:
        """Return whether the file has all lines of this picture."""
        return key in self._done

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Append the picture's lines, all in one write."""
        if self._replaces:
            self._path.write_bytes(b"")
            self._files.written.append(self._path)
            self._replaces = False
        if key not in self._done:
            jsonl.append(self._path, [result.to_dict() | {_KEY: key} for result in results])
            self._done.add(key)

    def finish(self, *, complete: bool) -> None:
        """Do nothing."""

    def results(self, keys: Sequence[str]) -> Iterable[Segmentation]:
        """Read the results with these keys, in the order of the keys."""
        by_key: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
        for _, value in jsonl.read(self._path):
            if value[_KEY] in by_key:
                by_key[value[_KEY]].append(value)
        return (Segmentation.from_dict(value) for key in keys for value in by_key[key])

    def _keep_finished_pictures(self, keys: Mapping[str, str], prompts: int) -> None:
        """Drop incomplete lines, pictures with too few lines, and pictures that have changed since."""
        requests = {request_part(key) for key in keys.values()}
        by_key: dict[str, list[bytes]] = {}
        for line, value in jsonl.read(self._path):
            key = str(value.get(_KEY, ""))
            if request_part(key) not in requests:
                raise InvalidRequestError(
                    f"{self._path} holds results of other prompts, options or another checkpoint; "
                    "choose another file, or leave out --resume to start over"
                )
            if keys.get(value["source"], key) == key:
                by_key.setdefault(key, []).append(line)
        finished = {key: group for key, group in by_key.items() if len(group) == prompts}
        kept = b"".join(line for group in finished.values() for line in group)
        if len(kept) != self._path.stat().st_size:
            write_atomically(self._path, kept)
        self._done = set(finished)


class DocumentFile:
    """One document in a file, written after the last picture from a hidden JSON Lines file beside it.

    The hidden file stays while something is missing (the run was stopped, or a picture failed), for ``--resume``.
    """

    def __init__(
        self,
        path: Path,
        render: DocumentFormat,
        keys: Mapping[str, str],
        *,
        prompts: int,
        resume: bool,
        files: OutputFiles,
    ) -> None:
        """Start or continue the hidden file; arguments and errors as for `JsonlFile`."""
        files.reserve(path)
        self._path = path
        self._render = render
        self._files = files
        self._keys = list(keys.values())
        self._unfinished = path.with_name(fitted(f".{path.name}", _UNFINISHED))
        self._lines = JsonlFile(self._unfinished, keys, prompts=prompts, resume=resume, files=OutputFiles(()))

    def has(self, picture: Picture, key: str) -> bool:
        """Return whether an unfinished run has done this picture."""
        return self._lines.has(picture, key)

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Keep the results in the hidden file."""
        self._lines.add(picture, key, results)

    def finish(self, *, complete: bool) -> None:
        """Write the document."""
        self._files.write_reserved(self._path, self._render(self._lines.results(self._keys)))
        if complete:
            self._unfinished.unlink()
