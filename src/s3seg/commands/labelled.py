"""Labelled pictures for ``s3seg calibrate``: from a COCO dataset, or a folder of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from s3seg.commands.segment.file_names import slug
from s3seg.commands.segment.picture_names import Found, picture_names
from s3seg.errors import InvalidRequestError
from s3seg.images.sources import expand
from s3seg.results import masks
from s3seg.results.masks import RLE
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.prompts import normalize_prompt


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture, and the masks that are right, by prompt; a prompt without masks is not in the picture."""

    picture: Path
    truth: dict[str, list[RLE]]


def from_coco(path: Path, root: Path | None) -> list[Labelled]:
    """Read a COCO dataset. Its categories are the prompts, and are labelled in every picture.

    Args:
        path: The dataset.
        root: The folder of its pictures; by default the folder of the dataset.

    Raises:
        InvalidRequestError: It is not a dataset, or a picture is missing.
        MaskError: A mask is malformed.
        OSError: It cannot be read.
    """
    labelled: dict[Path, Labelled] = {}
    for result in Segmentation.from_coco(path, empty_results=True):
        picture = (path.parent if root is None else root) / str(result.source)
        if not picture.is_file():
            raise InvalidRequestError(f"the picture {picture} is not there; say where they are with --root")
        one = labelled.setdefault(picture, Labelled(picture, {}))
        one.truth.setdefault(normalize_prompt(result.prompt), []).extend(result.rles)
    if not labelled:
        raise InvalidRequestError(f"{path} has no pictures or no categories")
    return list(labelled.values())


def from_masks(inputs: Sequence[str], folder: Path, prompts: Sequence[str]) -> list[Labelled]:
    """Read masks as ``s3seg segment --mask`` writes them: in each, every value but 0 is an instance.

    Args:
        inputs: The pictures, as for ``s3seg segment``.
        folder: Has a file NAME.PROMPT.mask.png for each picture and prompt, or, for a single prompt, NAME.png.
        prompts: The prompts.

    Raises:
        InvalidRequestError: A mask is missing or is not one; the message says which files were looked for.
    """
    found: list[Found] = []
    for one in inputs:
        searched = Path(one).expanduser()
        pictures = [path for path in expand([one], recursive=True) if isinstance(path, Path)]
        found += [Found(path, searched if searched.is_dir() else None) for path in pictures]
    if not found:
        raise InvalidRequestError("no picture to calibrate with; name files or folders before --masks")
    labelled = []
    for one, name in zip(found, picture_names(found), strict=True):
        truth = {}
        for prompt in prompts:
            candidates = [folder / f"{name}.{slug(prompt)}.mask.png"]
            candidates += [folder / f"{name}.png"] if len(prompts) == 1 else []
            path = next((path for path in candidates if path.is_file()), None)
            if path is None:
                names = " or ".join(map(str, candidates))
                raise InvalidRequestError(f"{one.source} has no mask for {prompt!r}; looked for {names}")
            truth[prompt] = _instances(path)
        labelled.append(Labelled(Path(one.source), truth))
    return labelled


def _instances(path: Path) -> list[RLE]:
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except (OSError, ValueError, Image.DecompressionBombError) as err:
        raise InvalidRequestError(f"{path} cannot be read as a mask: {err}") from err
    if values.ndim != 2:
        raise InvalidRequestError(f"{path} is a picture in colour; a mask has one number for each pixel")
    numbers = np.unique(values)
    if len(numbers) > 1000:
        raise InvalidRequestError(f"{path} has {len(numbers)} values; a mask has one for each instance")
    return [masks.encode(values == number) for number in numbers if number]
