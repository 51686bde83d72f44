"""Counts for each picture and prompt, zeros included, and masks for other programs."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
from PIL import Image

from s3seg.results import export
from tests.results.small_results import discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (22, 34, 12))
RESULTS = [
    result_of(STACK, prompt="cat", source="a.png"),
    empty_result((40, 60), prompt="dog", source="a.png"),
    empty_result((40, 60), prompt="cat", source="b.png"),
]


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_counts_have_a_row_for_every_picture_and_prompt():
    rows = list(csv.DictReader(io.StringIO(export.count_csv(RESULTS))))
    assert [(row["source"], row["prompt"], row["count"]) for row in rows] == [
        ("a.png", "cat", "3"),
        ("a.png", "dog", "0"),
        ("b.png", "cat", "0"),
    ]
    assert [int(row["area"]) for row in rows] == [STACK.any(axis=0).sum(), 0, 0]


def test_counts_in_pandas_are_a_table_of_pictures_by_prompts():
    table = export.count_pandas(RESULTS)
    assert table.loc["a.png"].tolist() == [3, 0]
    assert table.loc["b.png", "cat"] == 0
    assert table.loc["b.png", "dog"] is pd.NA  # was not asked
    assert table.sum().to_dict() == {"cat": 3, "dog": 0}
    assert export.count_pandas([]).empty


def test_a_binary_mask_is_white_where_anything_is():
    mask = opened(export.png_binary_mask(RESULTS[0]))
    assert mask.mode == "L"
    assert np.array_equal(np.asarray(mask), STACK.any(axis=0) * np.uint8(255))
    assert not np.asarray(opened(export.png_binary_mask(RESULTS[1]))).any()


def test_a_palette_mask_has_the_numbers_of_the_label_map_and_distinct_colours():
    mask = opened(export.png_palette_mask(RESULTS[0]))
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), RESULTS[0].label_map())
    colours = {tuple(colour) for colour in np.asarray(mask.convert("RGB")).reshape(-1, 3).tolist()}
    assert len(colours) == 4
    assert (0, 0, 0) in colours


def test_a_palette_mask_of_many_instances_starts_again_at_one():
    stack = np.zeros((300, 1, 300), bool)
    stack[np.arange(300), 0, np.arange(300)] = True
    numbers = np.asarray(opened(export.png_palette_mask(result_of(stack))))[0]
    assert numbers.tolist() == [k % 255 + 1 for k in range(300)]


def test_a_class_map_gives_each_pixel_to_the_prompt_with_the_best_score():
    cats = result_of(STACK[:1], prompt="cat", scores=[0.5])
    dogs = result_of(STACK[:2], prompt="dog", scores=[0.9, 0.4])
    birds = result_of(STACK[1:2], prompt="bird", scores=[0.8])
    classes = np.asarray(opened(export.png_class_map([cats, dogs, birds])))
    assert set(np.unique(classes[STACK[0] & ~STACK[1]])) == {2}
    assert set(np.unique(classes[STACK[1] & ~STACK[0]])) == {3}
    assert not classes[~STACK.any(axis=0)].any()
