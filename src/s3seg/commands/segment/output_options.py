"""The output options: what is written where, and which combinations are refused."""

from __future__ import annotations

import math
import mimetypes
import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from s3seg.commands.segment.journal import JOURNAL
from s3seg.errors import InvalidRequestError


class Format(StrEnum):
    """The values of ``--format``."""

    JSON = "json"
    JSONL = "jsonl"
    COCO = "coco"
    YOLO = "yolo"
    GEOJSON = "geojson"
    CSV = "csv"
    COUNTS = "counts"


class MaskKind(StrEnum):
    """The values of ``--mask-kind``."""

    LABELS = "labels"
    BINARY = "binary"
    PALETTE = "palette"
    CLASSES = "classes"


CLASSES = "classes"
"""The stem of the file in a folder of YOLO labels that lists the classes."""

OVERLAY_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""The file types that an overlay can be saved as."""

MASK_SUFFIXES = (".png",)
"""The file types that a label map can be saved as."""

_BY_SUFFIX = {".json": Format.JSON, ".jsonl": Format.JSONL, ".geojson": Format.GEOJSON, ".csv": Format.CSV}
_DOCUMENTS_ONLY = (Format.JSONL, Format.COCO, Format.CSV, Format.COUNTS)


@dataclass(frozen=True, slots=True)
class Target:
    """Where an output goes: one file, or a folder with files for each picture."""

    path: Path
    is_folder: bool


def parse_target(text: str | None, *, option: str, suffixes: Collection[str] = ()) -> Target | None:
    """Read the path of an output option; None if it was not given.

    A path is a folder if it exists as one, ends with a slash, or has no suffix. A name such as "labels.v1" is a folder
    too where ``suffixes`` are known, if ".v1" is neither one of them nor that of any common kind of file.

    Args:
        text: The value as it was typed.
        option: The name of the option, for messages.
        suffixes: Suffixes of the files that are written for one picture; empty if any suffix means a file.

    Raises:
        InvalidRequestError: The path is empty, or ends with a slash and is a file, or is a device or a pipe.
    """
    if text is None:
        return None
    if not text.strip():
        raise InvalidRequestError(f"the path of {option} is empty; name a file or a folder")
    path = Path(text)
    try:
        exists, is_dir, is_file = path.exists(), path.is_dir(), path.is_file()
    except (OSError, ValueError) as err:
        raise InvalidRequestError(f"{option} {text}: {getattr(err, 'strerror', None) or err}") from err
    if exists and not is_dir and not is_file:
        raise InvalidRequestError(f"{option} {text} is neither a file nor a folder; to pipe results, leave out -o")
    slash = text.endswith(("/", os.sep)) or os.path.basename(text) in (".", "..")  # noqa: PTH119 - Path drops them
    if is_file and slash:
        raise InvalidRequestError(f"{option} {text} names a folder, and {path} is a file")
    suffix = path.suffix.lower()
    other = bool(suffixes) and suffix not in suffixes and not _is_of_a_file(suffix)
    return Target(path, is_dir or slash or (not is_file and (not suffix or other)))


def parse_folder(text: str | None, *, option: str) -> Target | None:
    """Read the path of an option that takes folders only; None if it was not given.

    Raises:
        InvalidRequestError: The path is empty, or exists and is not a folder.
    """
    target = parse_target(text, option=option)
    if target is None:
        return None
    if target.path.exists() and not target.path.is_dir():
        raise InvalidRequestError(f"{option} needs a folder, and {target.path} is a file")
    return Target(target.path, is_folder=True)


def suffixes_of(format_: Format | None) -> Collection[str]:
    """Return the suffixes of files for one picture in a format; empty if the format is one file for all pictures."""
    if format_ is None or format_ in _DOCUMENTS_ONLY:
        return ()
    return {".json", *(suffix for suffix, implied in _BY_SUFFIX.items() if implied is format_)}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where each kind of output goes.

    Attributes:
        overlay: A picture file or a folder.
        mask: A PNG file or a folder.
        crops: A folder.
        format: The format of ``output``; None to write none.
        output: A file or a folder; None for stdout.
        mask_kind: What the pixels of ``mask`` are.
        polygons: Whether COCO has polygons instead of RLE.
        tolerance: Pixels by which the outlines of polygons may move.
        base_names: Whether COCO names pictures without their folders.

    Raises:
        InvalidRequestError: A path does not fit what is written to it.
    """

    overlay: Target | None = None
    mask: Target | None = None
    crops: Target | None = None
    format: Format | None = None
    output: Target | None = None
    mask_kind: MaskKind = MaskKind.LABELS
    polygons: bool = False
    tolerance: float = 0.0
    base_names: bool = False

    def __post_init__(self) -> None:
        self._check_unused()
        output, overlay, mask = self.output, self.overlay, self.mask
        if output and output.is_folder and self.format in _DOCUMENTS_ONLY:
            special = {"coco": "coco.json", "counts": "counts.csv"}
            name = special.get(str(self.format), f"found.{self.format}")
            raise InvalidRequestError(
                f"{self.format} is one file for all pictures: name it, such as -o {output.path / name}"
            )
        for option, target, suffixes in (("--overlay", overlay, OVERLAY_SUFFIXES), ("--mask", mask, MASK_SUFFIXES)):
            if target and not target.is_folder and target.path.suffix.lower() not in suffixes:
                raise InvalidRequestError(
                    f"{option} writes {', '.join(suffixes)}, not {target.path}; "
                    f"if it is to be a folder, end it with a slash: {target.path}/"
                )
        if any(target.path.name == JOURNAL for target in self._targets):
            raise InvalidRequestError(
                f"{JOURNAL} is the record of what is done in a folder; choose another output path"
            )

    def _check_unused(self) -> None:
        coco = self.format is Format.COCO
        has_polygons = (coco and self.polygons) or self.format in (Format.GEOJSON, Format.YOLO)
        needed = {
            "--mask-kind needs --mask": self.mask_kind is not MaskKind.LABELS and not self.mask,
            "--polygons needs --format coco; geojson and yolo always have polygons": self.polygons and not coco,
            "--base-names needs --format coco": self.base_names and not coco,
            "--tolerance needs --format geojson or yolo, or coco with --polygons": self.tolerance and not has_polygons,
        }
        for message, is_missing in needed.items():
            if is_missing:
                raise InvalidRequestError(message)
        if not 0 <= self.tolerance < math.inf:  # NaN too, which typer lets pass
            raise InvalidRequestError(f"--tolerance is a number of pixels, 0 or more, got {self.tolerance}")

    @property
    def _targets(self) -> list[Target]:
        return [target for target in (self.overlay, self.mask, self.crops, self.output) if target]

    @property
    def folders(self) -> list[Path]:
        """The folders among the paths, each once."""
        return list(dict.fromkeys(target.path for target in self._targets if target.is_folder))

    @property
    def reserved_names(self) -> list[str]:
        """Names that pictures cannot have in the output folders."""
        return [CLASSES] if self.format is Format.YOLO and self.output and self.output.is_folder else []

    @property
    def resumable(self) -> bool:
        """Whether anything is written that ``--resume`` can continue."""
        document = self.format in (Format.JSON, *_DOCUMENTS_ONLY)
        return bool(self.folders) or (self.output is not None and document)

    def check_counts(self, *, pictures: int, prompts: int) -> None:
        """Refuse one file for what needs several.

        Raises:
            InvalidRequestError: The message names the path, and what to use instead.
        """
        for option, target in (("--overlay", self.overlay), ("--mask", self.mask)):
            if target and pictures > 1 and not target.is_folder:
                raise InvalidRequestError(_one_file_for_several(option, target.path, f"{pictures} pictures"))
        per_prompt = self.mask_kind is not MaskKind.CLASSES
        if self.mask and per_prompt and not self.mask.is_folder and prompts > 1:
            raise InvalidRequestError(_one_file_for_several("--mask", self.mask.path, f"{prompts} prompts"))
        per_picture = self.format in (Format.GEOJSON, Format.YOLO)
        if pictures > 1 and per_picture and not (self.output and self.output.is_folder):
            raise InvalidRequestError(
                f"{self.format} is one file for each picture, and there are {pictures}: name a folder, such as -o out/"
            )


def choose_format(*, json: bool, jsonl: bool, format_: Format | None, output: str | None) -> Format | None:
    """Return the format that the options ask for, or that the suffix of ``--output`` implies.

    Raises:
        InvalidRequestError: There are several formats, or none can be told for ``output``.
    """
    flags = {Format.JSON: json, Format.JSONL: jsonl, format_: format_ is not None}
    given = [name for name, is_given in flags.items() if is_given and name]
    if len(given) > 1:
        raise InvalidRequestError(f"only one format at a time, got {' and '.join(given)}")
    if given:
        return given[0]
    if output is None:
        return None
    if (implied := _BY_SUFFIX.get(Path(output).suffix.lower())) is None:
        raise InvalidRequestError(f"cannot tell the format of {output}; add --format with one of {', '.join(Format)}")
    return implied


def _is_of_a_file(suffix: str) -> bool:
    """Whether a suffix is that of a common kind of file; ".v1" is not."""
    return mimetypes.MimeTypes(filenames=()).guess_type(f"x{suffix}")[0] is not None


def _one_file_for_several(option: str, path: Path, several: str) -> str:
    return f"{option} {path} is one file, and there are {several}: name a folder, such as {option} {path.stem}/"
