"""Write a data set that trainers of YOLO take: pictures, labels, and data.yaml.

dataset/data.yaml
dataset/images/train/a/1.jpg    dataset/labels/train/a/1.txt
dataset/images/val/b/2.jpg      dataset/labels/val/b/2.txt
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from s3seg import images
from s3seg.errors import InvalidRequestError
from s3seg.results import export
from s3seg.results.columns import Columns
from s3seg.results.pictures import Picture, Results, as_list, group_by_picture

_READ_BY_TRAINERS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""The suffixes of pictures that are copied as they are; others are written as PNG."""


_LONGEST_NAME = 200  # bytes of a file name without its suffix; disks take 255 in all


@dataclass(frozen=True, slots=True)
class YoloDataset:
    """What was written.

    Attributes:
        folder: The data set.
        classes: The prompts, in the order of their numbers.
        train: How many pictures are for training.
        val: How many are for validation.
        instances: How many instances were labelled.
    """

    folder: Path
    classes: list[str]
    train: int
    val: int
    instances: int


def write_yolo_dataset(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    val: float = 0.2,
    tolerance: float = 1.0,
    link: bool = False,
) -> YoloDataset:
    """Write the pictures of results, and their instances as labels, in the layout of Ultralytics.

    Pictures keep their folders below ``root``. A picture with nothing on it has an empty label file, so trainers use it
    as background. Which pictures are for validation depends on their names below ``root`` only: more pictures can be
    added later, and those that were there stay where they were, except in sets so small that all pictures would be for
    the same purpose. Folders called ``images`` become ``images_``, since trainers find labels by that name.

    Args:
        results: One result or many. Their sources must be picture files, or they must hold their pictures.
        folder: The data set to make; must not exist, or be empty. It is complete or not there at all.
        root: The folder that the names in the data set begin below; by default the one that all pictures share.
        val: The share of pictures for validation, 0..1. Of two or more pictures, at least one is, unless this is 0, and
            at least one is for training, unless this is 1.
        tolerance: Pixels by which outlines may move, to leave out vertices.
        link: Link to the pictures instead of copying them.

    Raises:
        InvalidRequestError: The folder is not empty, there is no result, or a picture is missing, has changed its size
            or is not below ``root``.
        OSError: A file cannot be read or written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequestError(f"{folder} exists and is not an empty folder; choose another, or remove it")
    if not 0 <= val <= 1:
        raise InvalidRequestError(f"the share for validation is between 0 and 1, got {val!r:.60}")
    columns = as_list(results)
    pictures = group_by_picture(columns)
    if not pictures:
        raise InvalidRequestError("there is no result to make a data set of")
    labels = export.yolo_files(columns, tolerance=tolerance)
    names = _names(pictures, root)
    for_val = _validation(names, val)
    temporary = folder.with_name(f".{folder.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        for picture, name in zip(pictures, names, strict=True):
            part = "val" if name in for_val else "train"
            target = temporary / "images" / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_picture(picture, target, link=link)
            label = temporary / "labels" / part / PurePosixPath(name).with_suffix(".txt")
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(labels[picture.name], encoding="ascii")
        classes = list(dict.fromkeys(result.prompt or "object" for result in columns))
        (temporary / "data.yaml").write_text(_yaml(classes, has_val=bool(for_val)), encoding="utf-8")
        if folder.exists():
            folder.rmdir()  # empty; Windows replaces no folder
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    instances = sum(text.count("\n") for text in labels.values())
    return YoloDataset(folder, classes, len(pictures) - len(for_val), len(for_val), instances)


def _names(pictures: Sequence[Picture], root: str | os.PathLike[str] | None) -> list[str]:
    """Return the path of each picture below ``images/train`` or ``images/val``, with "/" between folders."""
    paths = [_file(picture) for picture in pictures]
    files = [path for path in paths if path is not None]
    base = Path(os.path.abspath(root)) if root is not None else _shared_folder(files)  # noqa: PTH100
    names: list[str] = []
    taken: set[str] = set()
    for picture, path in zip(pictures, paths, strict=True):
        if path is None:
            name = PurePosixPath(f"{_safe(picture.name)}.png")
        elif not path.is_relative_to(base):
            raise InvalidRequestError(f"{picture.name} is not below {base}; choose another root")
        else:
            name = PurePosixPath(path.relative_to(base).as_posix())
        if name.suffix.lower() not in _READ_BY_TRAINERS:
            name = name.with_name(f"{name.name}.png")
        # trainers look for labels by replacing the last folder of this name in the path of a picture
        name = PurePosixPath(*("images_" if part == "images" else part for part in name.parts[:-1]), name.name)
        stem, number = name.with_suffix(""), 1
        while str(name.with_suffix("")).casefold() in taken:  # labels have no suffix of their own
            number += 1
            name = stem.with_name(f"{stem.name}-{number}{name.suffix}")
        taken.add(str(name.with_suffix("")).casefold())
        names.append(str(name))
    return names


def _file(picture: Picture) -> Path | None:
    """Return the absolute path of a picture's file, or None if there is none but the result holds the picture."""
    source = picture.results[0].source
    path = None if source is None or images.is_url(source) else Path(os.path.abspath(source))  # noqa: PTH100
    if path is not None and path.is_file():
        return path
    if _pixels(picture.results) is None:
        raise InvalidRequestError(
            f"the picture {picture.name} is not here, and its result does not hold it; run this in the folder in which "
            "the pictures were segmented"
        )
    return None


def _pixels(results: Iterable[Columns]) -> images.ImageSource | None:
    return next((images.of_result(result.image) for result in results if result.image is not None), None)


def _shared_folder(paths: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    except ValueError as err:  # on several drives
        raise InvalidRequestError(f"the pictures share no folder: {err}; make a data set of each") from err


def _safe(name: str) -> str:
    """Return a name for a file: the text with dashes for other signs, or, of a long one, its start and a digest."""
    safe = "".join(c if c.isalnum() or c in "-_.=" else "-" for c in name).strip(".") or "picture"
    if len(safe.encode()) <= _LONGEST_NAME:
        return safe
    return f"{safe[:40]}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]}"


def _validation(names: Sequence[str], share: float) -> set[str]:
    """Choose the names for validation by their digests, so that the choice for a name does not depend on others."""
    hashes = {name: hashlib.sha256(name.encode(errors="replace")).digest() for name in names}
    digests = {name: int.from_bytes(digest[:8], "big") / 2**64 for name, digest in hashes.items()}
    chosen = {name for name, digest in digests.items() if digest < share}
    if not chosen and share and len(names) > 1:
        chosen = {min(names, key=lambda name: digests[name])}
    elif chosen == set(names) and share < 1:
        chosen.remove(max(names, key=lambda name: digests[name]))
    return chosen


def _write_picture(picture: Picture, target: Path, *, link: bool) -> None:
    path = _file(picture)
    source = _pixels(picture.results) if path is None else path
    if path is None or path.suffix.lower() not in _READ_BY_TRAINERS:
        loaded = images.load(source)
        _check_size(picture, loaded.size)
        buffer = io.BytesIO()
        Image.fromarray(loaded.pixels).save(buffer, format="PNG")
        target.write_bytes(buffer.getvalue())
        return
    _check_size(picture, _upright_size(path))
    if link:
        target.symlink_to(path)
    else:
        shutil.copyfile(path, target)


def _upright_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as the file says, turned by its EXIF orientation; the picture is not decoded."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112) in (5, 6, 7, 8)
            return (picture.width, picture.height) if turned else (picture.height, picture.width)
    except (OSError, ValueError, Image.DecompressionBombError) as err:
        raise InvalidRequestError(f"{path} cannot be read as a picture: {err}") from err


def _check_size(picture: Picture, size: tuple[int, int]) -> None:
    if size != picture.size:
        raise InvalidRequestError(
            f"{picture.name} is {size} (height, width), but was {picture.size} when it was segmented; segment it again"
        )


def _yaml(classes: Sequence[str], *, has_val: bool) -> str:
    """Write data.yaml; names are quoted as in JSON, which YAML reads. Paths are relative to the file."""
    lines = ["# made by s3seg", "train: images/train", f"val: images/{'val' if has_val else 'train'}", "names:"]
    return "\n".join([*lines, *(f"  {k}: {json.dumps(name)}" for k, name in enumerate(classes))]) + "\n"
