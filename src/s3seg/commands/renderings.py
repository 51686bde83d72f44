"""From the results of one picture to the contents of files, each with the ending of its name.

The results are those of all prompts of the run, in order. What holds one prompt has the prompt in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO

from s3seg.commands import lines
from s3seg.commands.arguments import distinct, slug
from s3seg.results.segmentation import Segmentation

Rendering = Callable[[Sequence[Segmentation]], Iterator[tuple[str, bytes | str]]]
"""Results of a picture -> (ending of a file's name, contents), for each file."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""As what an overlay can be saved."""


def overlay(results: Sequence[Segmentation], *, suffix: str = ".png") -> Iterator[tuple[str, bytes]]:
    """One drawing, with the instances of all prompts."""
    from PIL import Image

    from s3seg.results import draw

    image = results[0].image
    if image is None:
        raise ValueError("an overlay needs the picture")
    file_format = Image.registered_extensions()[suffix]
    buffer = BytesIO()
    draw.overlay(image, list(results) if len(results) > 1 else results[0]).save(
        buffer, format=file_format, **({} if file_format == "PNG" else {"quality": 92})
    )
    yield f".overlay{suffix}", buffer.getvalue()


def mask(results: Sequence[Segmentation]) -> Iterator[tuple[str, bytes]]:
    """A label map for each prompt: 0 background, 1 the best instance ..."""
    from s3seg.results import export

    for said, result in _by_slug(results):
        yield f".{said}.mask.png", export.png_label_map(result)


def crops(results: Sequence[Segmentation]) -> Iterator[tuple[str, bytes]]:
    """Every instance cut out."""
    for said, result in _by_slug(results):
        for k, crop in enumerate(result.crops(), start=1):
            buffer = BytesIO()
            crop.save(buffer, format="PNG")
            yield f".{said}.{k:03d}.png", buffer.getvalue()


def json_files(results: Sequence[Segmentation]) -> Iterator[tuple[str, str]]:
    """For each prompt the result, as `Segmentation.load` reads it."""
    for said, result in _by_slug(results):
        yield f".{said}.json", lines.encode(result.to_dict())


def geojson(results: Sequence[Segmentation]) -> Iterator[tuple[str, str]]:
    """One FeatureCollection, with the instances of all prompts."""
    collections = [result.to_geojson() for result in results]
    features = [feature for collection in collections for feature in collection["features"]]
    numbered = [feature | {"id": k} for k, feature in enumerate(features, start=1)]
    yield ".geojson", lines.encode(collections[0] | {"features": numbered})


def yolo(results: Sequence[Segmentation]) -> Iterator[tuple[str, str]]:
    """One label file; classes are the prompts, counted from 0."""
    yield ".txt", "".join(result.to_yolo(class_id=k) for k, result in enumerate(results))


def _by_slug(results: Sequence[Segmentation]) -> Iterator[tuple[str, Segmentation]]:
    return zip(distinct([slug(result.prompt or "boxes") for result in results]), results, strict=True)
