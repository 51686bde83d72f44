"""Ask a network about a picture that a `Segmenter` has encoded: prompts and concepts, or the clicks on objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from s3seg.inference.clock import milliseconds_since
from s3seg.inference.embedding import Embedding
from s3seg.inference.making_results import make_click_result, make_result, name_concept
from s3seg.inference.prompts import checked_mask, make_click_queries, make_queries
from s3seg.inference.search import Search
from s3seg.inference.stages import Sam3Network
from s3seg.inference.tile_plan import plan_tiles
from s3seg.inference.tiling import detect_in_tiles
from s3seg.results.masks import RLE
from s3seg.results.segmentation import Instance, Segmentation, cut
from s3seg.tasks.clicks import Clicks


def predict_search(
    network: Sam3Network, embedding: Embedding, search: Search, *, batch_size: int, refiner: Callable[..., RLE]
) -> list[Segmentation]:
    """Look for prompts or a concept in a picture, and in its tiles if that was asked for.

    Args:
        network: The network that encoded the picture.
        embedding: The picture.
        search: What to look for.
        batch_size: How many tiles to encode together.
        refiner: Of the results; see `Segmentation`.

    Returns:
        A result for each prompt of the search, in order; the same object for duplicates.
    """
    image = embedding.encoded
    tiles = [] if search.tile is None else plan_tiles(image.size, search.tile, input_side=network.input_side)
    distinct = list(search.thresholds)
    queries = make_queries(distinct, search.boxes, search.negative_boxes, size=image.size)
    if search.concept is not None:
        queries = [replace(query, examples=search.concept.tokens) for query in queries]
    lowest = min(search.thresholds.values())
    start = time.perf_counter()
    detections = network.predict_queries(
        [(image, query) for query in queries],
        threshold=lowest,
        max_instances=None if tiles else search.max_instances,
    )
    timings = embedding.milliseconds | {"prompt": milliseconds_since(start) / len(distinct)}
    results = [
        make_result(
            network,
            image.size,
            prompt,
            one,
            threshold=lowest,
            timings=timings,
            photograph=image.photograph,
            picture=embedding.image,
            image_id=embedding.image_id,
        )
        for prompt, one in zip(distinct, detections, strict=True)
    ]
    results = [cut(result, search.thresholds[result.prompt]) for result in results]
    if tiles:
        pixels = embedding.image.pixels
        pieces = detect_in_tiles(
            network,
            lambda window: pixels[window[0] : window[2], window[1] : window[3]],
            tiles,
            distinct,
            size=image.size,
            threshold=lowest,
            batch_size=batch_size,
        )
        results = [result[: search.max_instances] for result in pieces.results(results)]
    if embedding.hints:
        results = [replace(one, hints=(*embedding.hints, *one.hints)) for one in results]
    results = [replace(one, refiner=refiner) for one in results]
    by_prompt = dict(zip(distinct, results, strict=True))
    asked = [by_prompt[prompt] for prompt in search.prompts]
    return asked if search.concept is None else [name_concept(network, one, search.concept.name) for one in asked]


def predict_clicks(
    network: Sam3Network,
    embedding: Embedding,
    objects: Sequence[Clicks],
    *,
    mask: np.ndarray | RLE | Instance | None,
    alternatives: bool,
    refiner: Callable[..., RLE],
) -> list[Segmentation]:
    """Predict the masks of objects in a picture.

    Args:
        network: The network that encoded the picture; its checkpoint has a click head.
        embedding: The picture.
        objects: What shows each object.
        mask: A mask to start from, for a single object.
        alternatives: Return several masks of each object.
        refiner: Of the results; see `Segmentation`.

    Returns:
        One result for each object, in order.
    """
    encoded = embedding.encoded
    starts = [] if mask is None else [checked_mask(mask, encoded.size)]
    queries = make_click_queries(objects, size=encoded.size, starts=starts)
    start = time.perf_counter()
    found = network.click_queries(encoded, queries, alternatives=alternatives)
    timings = embedding.milliseconds | {"prompt": milliseconds_since(start) / len(objects)}
    return [
        replace(
            make_click_result(
                network,
                encoded.size,
                "",
                one,
                timings=timings,
                picture=embedding.image,
                image_id=embedding.image_id,
            ),
            refiner=refiner,
        )
        for one in found
    ]
