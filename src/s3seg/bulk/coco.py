"""The results of a run as one COCO dataset, written as a stream: one shard is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from s3seg.bulk import results
from s3seg.bulk.run_folder import Run
from s3seg.results import masks
from s3seg.results.files import json_text


def coco_text(run: Run) -> Iterator[str]:
    """Yield the pieces of a COCO instance dataset, as `s3seg.export.coco` builds it for a few pictures.

    The id of an image is the id of its row. Pictures with an error, and those of shards without results, are left out.

    Raises:
        S3segError: The S3 server does not respond.
    """
    missing = set(run.missing())
    shards = [shard for shard in range(run.shards) if shard not in missing]
    categories = {prompt: k for k, prompt in enumerate(run.request.prompts, start=1)}
    yield '{"info": {"description": "instances found by s3seg"}, "images": ['
    yield from _listed(_images(run, shards))
    yield '\n], "categories": ['
    yield from _listed({"id": k, "name": prompt} for prompt, k in categories.items())
    yield '\n], "annotations": ['
    yield from _listed(_annotations(run, shards, categories))
    yield "\n]}\n"


def _images(run: Run, shards: list[int]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for row in results.read(run.out, shard, ["id", "uri", "height", "width"]).to_pylist():
            if row["height"] is not None:
                size = {"height": row["height"], "width": row["width"]}
                yield {"id": row["id"], "file_name": row["uri"], **size}


def _annotations(run: Run, shards: list[int], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    number = 0
    for shard in shards:
        for row in results.read(run.out, shard, ["id", "height", "width", "instances"]).to_pylist():
            for one in row["instances"]:
                number += 1
                rle = masks.RLE((row["height"], row["width"]), one["counts"])
                x1, y1, x2, y2 = masks.box(rle)
                yield {
                    "id": number,
                    "image_id": row["id"],
                    "category_id": categories[one["prompt"]],
                    "segmentation": masks.to_coco(rle),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": one["area"],
                    "iscrowd": 0,
                    "score": one["score"],
                    "box_xyxy": one["box"],
                }


def _listed(values: Iterator[dict[str, Any]]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield f"{',' if number else ''}\n{json_text(value)}"
