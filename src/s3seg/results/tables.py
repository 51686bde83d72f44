"""Results as tables: a row for each instance, or a count for each picture and prompt."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from csv import writer as csv_writer
from typing import TYPE_CHECKING, Any

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.columns import Columns
from s3seg.results.pictures import Results, as_list, group_by_picture

if TYPE_CHECKING:
    import pandas as pd


def csv(results: Results, *, empty_rows: bool = False) -> str:
    """Write CSV with a header, and one row for each instance; the columns are those of the command line.

    Args:
        results: one result or many.
        empty_rows: write a row for a picture and prompt with nothing found, with no values from "instance" to "y2" and
            area 0. By default such a picture has no row.
    """
    text = io.StringIO()
    rows = csv_writer(text, lineterminator="\n")
    rows.writerow(["source", "prompt", "instance", "score", "x1", "y1", "x2", "y2", "area", "height", "width"])
    columns = as_list(results)
    for image, result in zip(_names(columns), columns, strict=True):
        scored = zip(result.rles, result.scores.tolist(), result.boxes.tolist(), strict=True)
        for k, (rle, score, box) in enumerate(scored, start=1):
            sides = (round(side, 2) for side in box)
            rows.writerow([image, result.prompt, k, round(score, 4), *sides, masks.area(rle), *result.size])
        if empty_rows and not result.rles:
            rows.writerow([image, result.prompt, *[""] * 6, 0, *result.size])
    return text.getvalue()


def pandas(results: Results, *, empty_rows: bool = False) -> pd.DataFrame:
    """Build a table with one row for each instance of one result or many.

    Columns: source, prompt, score, x1, y1, x2, y2 (pixels), area (pixels), height, width, rle (COCO counts), and image:
    the source, or a distinct name for a picture without one.

    Args:
        results: one result or many.
        empty_rows: add a row for a picture and prompt with nothing found, with area 0 and no score, box and rle. Then
            ``table.groupby(["image", "prompt"])["score"].count()`` counts the instances of every picture, zeros
            included. By default such a picture has no row.

    Raises:
        InvalidRequestError: pandas is not installed.
    """
    pd = _import_pandas()
    columns = as_list(results)
    rows: list[tuple[Any, ...]] = []
    for image, result in zip(_names(columns), columns, strict=True):
        for rle, score, box in zip(result.rles, result.scores, result.boxes, strict=True):
            rows.append((result.source, result.prompt, score, *box, masks.area(rle), *result.size, rle.counts, image))
        if empty_rows and not result.rles:
            nothing = [np.float32("nan")] * 5
            rows.append((result.source, result.prompt, *nothing, 0, *result.size, None, image))
    types = {
        "source": object,
        "prompt": object,
        **dict.fromkeys(("score", "x1", "y1", "x2", "y2"), np.float32),
        **dict.fromkeys(("area", "height", "width"), np.int64),
        "rle": object,
        "image": object,
    }
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def count_csv(results: Results) -> str:
    """Write CSV with a header and the number of instances for each picture and prompt, zeros included.

    Columns: source, prompt, count, and area: the pixels in any of the instances.
    """
    text = io.StringIO()
    rows = csv_writer(text, lineterminator="\n")
    rows.writerow(["source", "prompt", "count", "area"])
    rows.writerows(_counts(as_list(results)))
    return text.getvalue()


def count_pandas(results: Results) -> pd.DataFrame:
    """Build a table of the number of instances, zeros included: a row for each picture, a column for each prompt.

    A prompt that was not asked of a picture has no number there (`pandas.NA`).

    Raises:
        InvalidRequestError: pandas is not installed.
    """
    pd = _import_pandas()
    rows: dict[str, dict[str, int]] = {}
    prompts: dict[str, None] = {}
    for image, prompt, count, _ in _counts(as_list(results)):
        rows.setdefault(image, {})[prompt] = count
        prompts[prompt] = None
    table = pd.DataFrame(
        {prompt: pd.array([row.get(prompt) for row in rows.values()], dtype="Int64") for prompt in prompts},
        index=pd.Index(list(rows), name="image", dtype=object),
    )
    table.columns.name = "prompt"
    return table


def _counts(results: Sequence[Columns]) -> Iterator[tuple[str, str, int, int]]:
    """Yield picture, prompt, number of instances, and area for each picture and prompt, in order of appearance."""
    together: dict[tuple[str, str], list[masks.RLE]] = {}
    for image, result in zip(_names(results), results, strict=True):
        together.setdefault((image, result.prompt), []).extend(result.rles)
    for (image, prompt), rles in together.items():
        yield image, prompt, len(rles), masks.area(masks.union(rles)) if rles else 0


def _names(results: Sequence[Columns]) -> list[str]:
    """Return the distinct name of each result's picture."""
    names = {id(one): picture.name for picture in group_by_picture(results) for one in picture.results}
    return [names[id(result)] for result in results]


def _import_pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as err:
        raise InvalidRequestError("tables of pandas need pandas: pip install pandas") from err
    return pd
