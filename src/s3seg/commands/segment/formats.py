"""The contents of output files, by format.

Formats for one picture take its results, one for each prompt in order, and yield a file name's ending and contents
for each file. Files that hold a single prompt have it in their names. Documents take the results of all pictures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from s3seg.commands.escaping import as_utf8
from s3seg.commands.segment import jsonl
from s3seg.commands.segment.file_names import distinct, slug
from s3seg.commands.segment.output_options import MaskKind

if TYPE_CHECKING:
    from s3seg.results.segmentation import Segmentation


PictureFormat = Callable[[Sequence["Segmentation"]], Iterator[tuple[str, bytes | str]]]
"""The results of a picture -> (ending of a file name, contents), for each file."""

DocumentFormat = Callable[[Iterable["Segmentation"]], str]
"""The results of all pictures -> the contents of one file."""


def overlay(results: Sequence[Segmentation], *, suffix: str = ".png") -> Iterator[tuple[str, bytes]]:
    """The picture with the instances of all prompts drawn on it."""
    from PIL import Image

    from s3seg.results import draw

    image = results[0].image
    if image is None:
        raise ValueError("an overlay needs the picture's pixels, and the result has none")
    file_format = Image.registered_extensions()[suffix]
    buffer = io.BytesIO()
    draw.overlay(image, list(results) if len(results) > 1 else results[0]).save(
        buffer, format=file_format, **({} if file_format == "PNG" else {"quality": 92})
    )
    yield f".overlay{suffix}", buffer.getvalue()


def mask(results: Sequence[Segmentation], *, kind: MaskKind) -> Iterator[tuple[str, bytes]]:
    """A mask of the kind for each prompt, or one of all prompts for classes."""
    from s3seg.results import export

    if kind is MaskKind.CLASSES:
        yield ".mask.png", export.png_class_map(results)
        return
    encode = {
        MaskKind.LABELS: export.png_label_map,
        MaskKind.BINARY: export.png_binary_mask,
        MaskKind.PALETTE: export.png_palette_mask,
    }[kind]
    for name, result in _named(results):
        yield f".{name}.mask.png", encode(result)


def crops(results: Sequence[Segmentation]) -> Iterator[tuple[str, bytes]]:
    """A cut-out of each instance, with its mask as alpha channel."""
    for name, result in _named(results):
        for k, crop in enumerate(result.crops(), start=1):
            buffer = io.BytesIO()
            crop.save(buffer, format="PNG")
            yield f".{name}.{k:03d}.png", buffer.getvalue()


def json_files(results: Sequence[Segmentation]) -> Iterator[tuple[str, str]]:
    """A result for each prompt, for `Segmentation.load`."""
    for name, result in _named(results):
        yield f".{name}.json", jsonl.encode(result.to_dict())


def geojson(results: Sequence[Segmentation], *, tolerance: float) -> Iterator[tuple[str, str]]:
    """One FeatureCollection with the instances of all prompts."""
    collections = [result.to_geojson(tolerance=tolerance) for result in results]
    features = [feature for collection in collections for feature in collection["features"]]
    numbered = [feature | {"id": k} for k, feature in enumerate(features, start=1)]
    yield ".geojson", jsonl.encode(collections[0] | {"features": numbered})


def yolo(results: Sequence[Segmentation], *, tolerance: float) -> Iterator[tuple[str, str]]:
    """One label file; the classes are the prompts, from 0."""
    yield ".txt", "".join(result.to_yolo(class_id=k, tolerance=tolerance) for k, result in enumerate(results))


def json_document(results: Iterable[Segmentation]) -> str:
    """An array with an object for each picture and prompt, for `Segmentation.from_dict`."""
    return jsonl.encode([result.to_dict() for result in results])


def coco_document(results: Iterable[Segmentation], *, polygons: bool, tolerance: float, base_names: bool) -> str:
    """One COCO instance dataset."""
    from s3seg.results import export

    return jsonl.encode(export.coco(results, polygons=polygons, tolerance=tolerance, base_names=base_names))


def counts_document(results: Iterable[Segmentation]) -> str:
    """A row of CSV with the number of instances for each picture and prompt."""
    from s3seg.results import export

    return as_utf8(export.count_csv(results))


def csv_document(results: Iterable[Segmentation]) -> str:
    """A row for each instance; of a picture and prompt without any, a row with the instance 0.

    What is not text, in file names that are not UTF-8, is escaped as in JSON.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["source", "prompt", "instance", "score", "x1", "y1", "x2", "y2", "area", "height", "width"])
    for result in results:
        for k, one in enumerate(result, start=1):
            box = (round(side, 2) for side in one.box)
            rows.writerow([result.source, one.prompt, k, round(one.score, 4), *box, one.area, *result.size])
        if not len(result):
            rows.writerow([result.source, result.prompt, 0, "", "", "", "", "", 0, *result.size])
    return as_utf8(text.getvalue())


def _named(results: Sequence[Segmentation]) -> Iterator[tuple[str, Segmentation]]:
    """Pair each result with its prompt in a form for file names."""
    return zip(distinct([slug(result.prompt or "boxes") for result in results]), results, strict=True)
