"""From the output options to outputs: what goes where, and which combinations make no sense."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from s3seg.commands import documents, renderings
from s3seg.commands.files import Files
from s3seg.commands.formats import Format
from s3seg.commands.outputs import Folder, Journal, OneFile, Output, Screen
from s3seg.commands.renderings import Rendering
from s3seg.commands.terminal import Terminal
from s3seg.errors import InvalidRequestError

_BY_SUFFIX = {".json": Format.JSON, ".jsonl": Format.JSONL, ".geojson": Format.GEOJSON, ".csv": Format.CSV}
_COMPOSE: dict[Format, documents.Compose] = {
    Format.JSON: documents.json_document,
    Format.COCO: documents.coco_document,
    Format.CSV: documents.csv_document,
}
_PER_PICTURE: dict[Format, Rendering] = {
    Format.JSON: renderings.json_files,
    Format.GEOJSON: renderings.geojson,
    Format.YOLO: renderings.yolo,
}


@dataclass(frozen=True, slots=True)
class Run:
    """What outputs need to know of the run.

    Attributes:
        keys: Of its pictures, by their sources.
        prompts: In order.
        resume: Whether to go on with what an earlier run has left.
    """

    keys: Mapping[str, str]
    prompts: list[str]
    resume: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The output options, checked against each other.

    Attributes:
        overlay: A picture file or a folder.
        mask: A PNG file or a folder.
        crops: A folder.
        format: What ``output``, or stdout, gets; None for nothing.
        output: A file or a folder; None for stdout.
    """

    overlay: Path | None
    mask: Path | None
    crops: Path | None
    format: Format | None
    output: Path | None

    @property
    def folders(self) -> list[Path]:
        """The folders among them."""
        candidates = [self.overlay, self.mask, self.output]
        return list(dict.fromkeys([p for p in candidates if p and _is_folder(p)] + [p for p in [self.crops] if p]))

    @property
    def lasting(self) -> bool:
        """Whether anything is written that ``--resume`` could go on with."""
        return bool(self.folders) or (self.output is not None and self.format in (Format.JSONL, *_COMPOSE))

    def check(self, run: Run) -> None:
        """Refuse one file for what are several.

        Raises:
            InvalidRequestError: The message says which, and what to name instead.
        """
        files = [path for path in (self.overlay, self.mask, self.output) if path and not _is_folder(path)]
        if len({path.resolve() for path in files}) < len(files):
            raise InvalidRequestError(f"two outputs have the name {files[0]}; give each its own")
        several = len(run.keys) > 1
        for option, path in (("--overlay", self.overlay), ("--mask", self.mask)):
            if path and several and not _is_folder(path):
                raise InvalidRequestError(_one_file_for_many(option, path, f"{len(run.keys)} pictures"))
        if self.mask and not _is_folder(self.mask) and len(run.prompts) > 1:
            raise InvalidRequestError(_one_file_for_many("--mask", self.mask, f"{len(run.prompts)} prompts"))
        if several and self.format in (Format.GEOJSON, Format.YOLO) and not (self.output and _is_folder(self.output)):
            raise InvalidRequestError(
                f"{self.format} is a file for each picture, and there are {len(run.keys)}: name a folder, -o out/"
            )

    def outputs(self, run: Run, *, files: Files, terminal: Terminal, journals: Mapping[Path, Journal]) -> list[Output]:
        """Make the outputs.

        Args:
            run: What they need to know.
            files: Writes them.
            terminal: Stdout.
            journals: For each of `folders`.

        Raises:
            InvalidRequestError: One of them is a picture of the run, or holds results of another request.
            OSError: One of them cannot be written.
        """

        def one(path: Path, kind: str, rendering: Rendering) -> Output:
            if _is_folder(path):
                return Folder(path, kind, rendering, files=files, journal=journals[path])
            files.check(path)
            return OneFile(path, rendering, files=files, terminal=terminal)

        made: list[Output] = []
        if self.overlay:
            suffix = ".png" if _is_folder(self.overlay) else self.overlay.suffix.lower()
            made.append(one(self.overlay, "overlay", functools.partial(renderings.overlay, suffix=suffix)))
        if self.mask:
            made.append(one(self.mask, "mask", renderings.mask))
        if self.crops:
            made.append(Folder(self.crops, "crops", renderings.crops, files=files, journal=journals[self.crops]))
        if self.format:
            made.append(self._formatted(self.format, run, one=one, files=files, terminal=terminal))
        return made or [Screen(terminal)]

    def _formatted(self, format_: Format, run: Run, *, one: ..., files: Files, terminal: Terminal) -> Output:
        per_picture = _PER_PICTURE.get(format_)
        if self.output is None:
            if format_ is Format.JSONL:
                return documents.StdoutLines(terminal)
            if compose := _COMPOSE.get(format_):
                return documents.StdoutDocument(compose, terminal=terminal)
            return OneFile(None, _PER_PICTURE[format_], files=files, terminal=terminal)
        if per_picture and (_is_folder(self.output) or format_ not in _COMPOSE):
            if format_ is Format.YOLO and _is_folder(self.output):
                files.write(
                    self.output / "classes.txt",
                    "".join(f"{prompt}\n" for prompt in run.prompts or ["object"]),
                )
            return one(self.output, str(format_), per_picture)
        arguments = {"prompts": len(run.prompts) or 1, "resume": run.resume, "files": files}
        if format_ is Format.JSONL:
            return documents.LinesFile(self.output, run.keys, **arguments)
        return documents.DocumentFile(self.output, _COMPOSE[format_], run.keys, **arguments)


def parse(
    *,
    overlay: Path | None,
    mask: Path | None,
    crops: Path | None,
    json: bool,
    jsonl: bool,
    format_: Format | None,
    output: Path | None,
) -> Targets:
    """Read the output options.

    Raises:
        InvalidRequestError: They contradict each other.
    """
    asked = {Format.JSON: json, Format.JSONL: jsonl, format_: format_ is not None}
    formats = [name for name, wanted in asked.items() if wanted and name]
    if len(formats) > 1:
        raise InvalidRequestError(f"one format at a time: {' and '.join(formats)} were asked for")
    chosen = formats[0] if formats else None
    if output and not chosen:
        chosen = _BY_SUFFIX.get(output.suffix.lower())
        if chosen is None:
            raise InvalidRequestError(f"what shall {output} be? say it with --format: {', '.join(Format)}")
    if output and _is_folder(output) and chosen in (Format.JSONL, Format.COCO, Format.CSV):
        name = "coco.json" if chosen is Format.COCO else f"found.{chosen}"
        raise InvalidRequestError(f"{chosen} is one file for all pictures: name it, such as -o {output / name}")
    if overlay and not _is_folder(overlay) and overlay.suffix.lower() not in renderings.PICTURE_SUFFIXES:
        raise InvalidRequestError(f"--overlay writes {', '.join(renderings.PICTURE_SUFFIXES)}, not {overlay}")
    if mask and not _is_folder(mask) and mask.suffix.lower() != ".png":
        raise InvalidRequestError(f"--mask writes .png, not {mask}")
    if crops and crops.exists() and not crops.is_dir():
        raise InvalidRequestError(f"--crops takes a folder, and {crops} is a file")
    return Targets(overlay=overlay, mask=mask, crops=crops, format=chosen, output=output)


def _is_folder(path: Path) -> bool:
    """A folder that exists, or a name without a suffix."""
    return path.is_dir() or not path.suffix


def _one_file_for_many(option: str, path: Path, many: str) -> str:
    return f"{option} {path} is one file, and there are {many}: name a folder, such as {option} {path.stem}/"
