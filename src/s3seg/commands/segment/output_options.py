"""The output options: what is written where, and which combinations are refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from s3seg.errors import InvalidRequestError


class Format(StrEnum):
    """The values of ``--format``."""

    JSON = "json"
    JSONL = "jsonl"
    COCO = "coco"
    YOLO = "yolo"
    GEOJSON = "geojson"
    CSV = "csv"


OVERLAY_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""The file types that an overlay can be saved as."""

_BY_SUFFIX = {".json": Format.JSON, ".jsonl": Format.JSONL, ".geojson": Format.GEOJSON, ".csv": Format.CSV}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where each kind of output goes.

    A path that is a folder, or has no suffix, gets a file for each picture; any other path is one file.

    Attributes:
        overlay: A picture file or a folder.
        mask: A PNG file or a folder.
        crops: A folder.
        format: The format of ``output``; None to write none.
        output: A file or a folder; None for stdout.

    Raises:
        InvalidRequestError: A path does not fit what is written to it.
    """

    overlay: Path | None = None
    mask: Path | None = None
    crops: Path | None = None
    format: Format | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        output, overlay, mask, crops = self.output, self.overlay, self.mask, self.crops
        if output and is_folder(output) and self.format in (Format.JSONL, Format.COCO, Format.CSV):
            name = "coco.json" if self.format is Format.COCO else f"found.{self.format}"
            raise InvalidRequestError(
                f"{self.format} is one file for all pictures: name it, such as -o {output / name}"
            )
        if overlay and not is_folder(overlay) and overlay.suffix.lower() not in OVERLAY_SUFFIXES:
            raise InvalidRequestError(f"--overlay writes {', '.join(OVERLAY_SUFFIXES)}, not {overlay}")
        if mask and not is_folder(mask) and mask.suffix.lower() != ".png":
            raise InvalidRequestError(f"--mask writes .png, not {mask}")
        if crops and crops.exists() and not crops.is_dir():
            raise InvalidRequestError(f"--crops needs a folder, and {crops} is a file")

    @property
    def folders(self) -> list[Path]:
        """The folders among the paths, each once."""
        candidates = [self.overlay, self.mask, self.output]
        return list(dict.fromkeys([p for p in candidates if p and is_folder(p)] + [p for p in [self.crops] if p]))

    @property
    def resumable(self) -> bool:
        """Whether anything is written that ``--resume`` can continue."""
        document = self.format in (Format.JSON, Format.JSONL, Format.COCO, Format.CSV)
        return bool(self.folders) or (self.output is not None and document)

    def check_counts(self, *, pictures: int, prompts: int) -> None:
        """Refuse one file for what needs several.

        Raises:
            InvalidRequestError: The message names the path, and what to use instead.
        """
        files = [path for path in (self.overlay, self.mask, self.output) if path and not is_folder(path)]
        if len({path.resolve() for path in files}) < len(files):
            raise InvalidRequestError(f"two outputs have the same path {files[0]}; give each its own")
        for option, path in (("--overlay", self.overlay), ("--mask", self.mask)):
            if path and pictures > 1 and not is_folder(path):
                raise InvalidRequestError(_one_file_for_several(option, path, f"{pictures} pictures"))
        if self.mask and not is_folder(self.mask) and prompts > 1:
            raise InvalidRequestError(_one_file_for_several("--mask", self.mask, f"{prompts} prompts"))
        per_picture = self.format in (Format.GEOJSON, Format.YOLO)
        if pictures > 1 and per_picture and not (self.output and is_folder(self.output)):
            raise InvalidRequestError(
                f"{self.format} is one file for each picture, and there are {pictures}: name a folder, such as -o out/"
            )


def choose_format(*, json: bool, jsonl: bool, format_: Format | None, output: Path | None) -> Format | None:
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
    if (implied := _BY_SUFFIX.get(output.suffix.lower())) is None:
        raise InvalidRequestError(f"cannot tell the format of {output}; add --format with one of {', '.join(Format)}")
    return implied


def is_folder(path: Path) -> bool:
    """Return whether a path is an existing folder, or has no suffix."""
    return path.is_dir() or not path.suffix


def _one_file_for_several(option: str, path: Path, several: str) -> str:
    return f"{option} {path} is one file, and there are {several}: name a folder, such as {option} {path.stem}/"
