"""Downloads that the page makes itself: the same values as those of the library."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from s3seg import export
from s3seg.results import instances_file
from s3seg.results.polygons import trace_polygons
from tests.results.small_results import discs, empty_result, result_of
from tests.web.playground.test_masks import encoded, random_masks

pytestmark = pytest.mark.slow  # a browser, 2 to 5 s a test; test_browser.py goes the whole way in `make test`

ITEMS = """
import { Mask } from "./rle.js";
import { cocoOf, geojsonOf } from "./exports.js";
const groups = input.results.map((result) => ({ prompt: result.prompt,
  items: result.instances.map(({ rle, score, box }) => ({ mask: new Mask(rle), score, box })) }));
"""


def stacks():
    """Results of one picture: discs that overlap, noise with holes, nothing, and an empty mask."""
    rng = np.random.default_rng(2)
    noise = rng.random((3, 40, 50)) < 0.6
    noise[2] = False
    source = {"source": "park.png"}
    return [
        result_of(discs(40, 50, (10, 12, 8), (12, 20, 9), (30, 30, 5)), prompt="tree", **source),
        result_of(noise, prompt="a “leaf”", **source),
        empty_result((40, 50), prompt="nothing", **source),
    ]


@pytest.mark.parametrize("kind", ["coco", "geojson"])
def test_a_download_has_the_same_values_as_the_export_of_the_library(run_node, kind):
    results = stacks()
    said = run_node(
        ITEMS + f"print({kind}Of(input.picture, groups));",
        {
            "picture": {"name": "park.png", "width": 50, "height": 40},
            "results": [result.to_dict() for result in results],
        },
    )
    assert said == json.loads(json.dumps(getattr(export, kind)(results)))


def test_polygons_are_those_of_the_library(run_node):
    masks = random_masks(150, longest=25)
    said = run_node(
        'import { Mask } from "./rle.js"; import { polygonsOf } from "./polygons.js";'
        "print(input.map((rle) => polygonsOf(new Mask(rle))));",
        [encoded(mask) for mask in masks],
    )
    for mask, polygons in zip(masks, said, strict=True):
        assert polygons == [[ring.tolist() for ring in polygon] for polygon in trace_polygons(mask)]


def test_an_archive_is_read_by_others(run_node):
    files = {"a.txt": b"some text", "träd-1.png": bytes(range(256)) * 40, "empty": b""}
    said = run_node(
        'import { zipOf } from "./zip.js";'
        "const files = input.map(([name, bytes]) => ({ name, blob: new Blob([Uint8Array.from(bytes)]) }));"
        "print(Buffer.from(await (await zipOf(files)).arrayBuffer()).toString('base64'));",
        [[name, list(body)] for name, body in files.items()],
    )
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(said))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_cut_outs_and_geojson_are_those_of_the_library_for_what_is_shown(browse, service):
    pixels = np.random.default_rng(5).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stack = np.zeros((3, 6, 8), bool)
    stack[0, 1:5, 2:4] = stack[0, 4, 2:7] = True  # an L
    stack[1, 0, 0] = True
    stack[2, 2:4, 5:8] = True
    result = result_of(stack, prompt="red/…circle", scores=np.array([0.9, 0.8, 0.3]), source="a.png")
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    said = browse(
        """
        const stored = { body: input.instances, contentType: "application/json" };
        await page.route(/results.*[.]json$/, (route) => route.fulfill(stored));
        await open(input.token);
        await page.setInputFiles("#file", { ...picture, buffer: Buffer.from(input.pixels, "base64") });
        await page.waitForSelector("#stage:not([hidden])");
        await find("circle"); await idle();
        await page.uncheck("#groups li input >> nth=1");
        return [await saved("#save-cutouts"), await saved("#save-geojson")];
        """,
        token=service.token("cutter"),
        instances=instances_file.write([result], threshold=0.5).decode(),
        pixels=base64.b64encode(png.getvalue()).decode(),
    )
    assert [one["name"] for one in said] == ["a.cutouts.zip", "a.geojson"]
    cutouts, geojson = (base64.b64decode(one["body"]) for one in said)
    shown = result[:1]  # the second is hidden, and the third scores too low
    with zipfile.ZipFile(io.BytesIO(cutouts)) as archive:
        assert archive.namelist() == ["red-circle-1.png"]
        cut = np.asarray(Image.open(io.BytesIO(archive.read("red-circle-1.png"))))
    (expected,) = map(np.asarray, shown.crops(Image.fromarray(pixels)))
    assert np.array_equal(cut[..., 3], expected[..., 3])
    assert np.array_equal(cut[cut[..., 3] > 0], expected[cut[..., 3] > 0])
    assert json.loads(geojson) == json.loads(json.dumps(export.geojson(shown)))
