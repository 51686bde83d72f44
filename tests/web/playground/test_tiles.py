"""Large pictures in tiles: which sides the page offers, what it sends, and what it shows again."""

from __future__ import annotations

import base64

import pytest

from s3seg.app.settings import Settings
from s3seg.inference.tile_plan import plan_tiles
from s3seg.tasks.tiles import checked_tile_of_service
from tests.helpers.pictures import encoded

SMALL = [(1, 1), (8, 6), (640, 640), (1000, 1000)]
LARGE = [(1001, 700), (1500, 1500), (1920, 1080), (2001, 400), (3000, 4000), (4032, 3024), (8000, 6000), (400, 40_000)]
OFFERED = """
import { sidesFor, tileCount } from "./tiles.js";
print(input.map(([width, height]) => sidesFor(width, height).map((side) => [side, tileCount(width, height, side)])));
"""
CODE = """
import { codeFor } from "./code.js";
print(codeFor({ url: "http://x.example", file: "a.png", imageUrl: null, threshold: null, ...input }));
"""
CHOOSE_LARGE = """
const large = { name: "large.png", mimeType: "image/png", buffer: Buffer.from(input.large, "base64") };
const take = async (file) => {
  await page.setInputFiles("#file", file);
  await page.waitForFunction((name) => document.querySelector("#name").textContent === name, file.name);
};
"""


def test_the_page_counts_tiles_as_the_service_cuts_them(run_node):
    most = Settings.model_fields["max_tiles"].default
    offered = run_node(OFFERED, LARGE)
    for (width, height), sides in zip(LARGE, offered, strict=True):
        assert sides
        for side, count in sides:
            assert checked_tile_of_service(side) == side
            tiles = plan_tiles((height, width), side, input_side=288, max_tiles=most)  # raises if there are more
            assert len(tiles) == count > 1


def test_no_tiles_are_offered_for_small_pictures(run_node):
    assert run_node(OFFERED, SMALL) == [[]] * len(SMALL)


def test_code_to_copy_has_the_tiles(run_node):
    code = run_node(CODE, {"question": {"words": ["cat", "dog"], "tile": 500}})
    assert 'client.segment("a.png", ["cat", "dog"], tile=500)' in code["python"]
    assert '"text_prompts":["cat","dog"],"tile":500}' in code["curl"]
    assert "--prompt=cat --prompt=dog --tile 500 --url" in code["cli"]


def test_code_to_copy_of_a_whole_picture_says_nothing_of_tiles(run_node):
    code = run_node(CODE, {"question": {"words": ["cat"], "tile": None}})
    assert not any("tile" in one or "while" in one for one in code.values())


@pytest.mark.slow
def test_tiles_are_chosen_for_a_large_picture_and_shown_again_after_a_reload(browse, service):
    said = browse(
        CHOOSE_LARGE
        + """
        await open(input.token); await choose();
        const small = await page.isVisible("#tile");
        await take(large);
        const options = await texts("#tile option");
        const first = await text("#tile-hint");
        const ask = async (model) => {
          const [request] = await Promise.all([
            page.waitForRequest((one) => one.url().endsWith("/segment")), page.press("#prompts", "Enter"),
          ]);
          await page.waitForFunction((end) => document.querySelector("#model").textContent.endsWith(end), model);
          await idle();
          return [request.postDataJSON(), await text("#groups .score"), await text("#model")];
        };
        await page.fill("#prompts", "cat");
        const whole = await ask("ms");
        await page.selectOption("#tile", "500");
        const chosen = await text("#tile-hint");
        const tiled = await ask("pixels");
        await page.evaluate(() => (document.querySelector("#code").open = true));
        const code = await text("#code-text");
        await page.reload();
        await page.waitForSelector("#results:not([hidden])"); await idle();
        const reloaded = [await page.inputValue("#tile"), await text("#model")];
        await page.evaluate(() => (document.querySelector("#past").open = true));
        await page.click("#past-list button >> nth=1");
        await page.waitForFunction(() => document.querySelector("#groups .score").textContent === "0.90");
        await idle();
        const past = [await page.inputValue("#tile"), await text("#model")];
        await page.selectOption("#tile", "500"); await take({ ...large, name: "next.png" });
        const kept = await page.inputValue("#tile");
        await take(picture);
        const again = await page.isVisible("#tile");
        return { small, options, first, whole, chosen, tiled, code, reloaded, past, kept, again };
        """,
        token=service.token("aerial"),
        large=base64.b64encode(encoded(size=(1600, 1200))).decode(),
    )
    assert said["small"] is said["again"] is False
    assert said["options"][:2] == ["no, at the whole picture once", "in 4 tiles of 1000 pixels"]
    assert said["options"][2:] == ["in 12 tiles of 500 pixels", "in 63 tiles of 250 pixels"]
    assert said["first"].startswith("For things that are small")
    assert "25 pixels" in said["chosen"]
    assert "13 times as long" in said["chosen"]
    whole, tiled = said["whole"], said["tiled"]
    assert "tile" not in whole[0]
    assert tiled[0] == {**whole[0], "tile": 500}
    assert (whole[1], tiled[1]) == ("0.90", "0.80")  # the worker was asked for tiles
    assert "tiles" not in whole[2]
    assert tiled[2].endswith("also in tiles of 500 pixels")
    assert "tile=500" in said["code"]
    assert said["reloaded"] == ["500", tiled[2]]
    assert said["past"] == ["", whole[2]]
    assert said["kept"] == "500"


@pytest.mark.slow
def test_words_go_with_tiles_and_boxes_do_not(browse, service):
    said = browse(
        CHOOSE_LARGE
        + """
        await open(input.token); await take(large);
        await page.selectOption("#tile", "500");
        await tool("like"); await drag([2, 1], [5, 4]);
        const [request] = await Promise.all([
          page.waitForRequest((one) => one.url().endsWith("/segment")), page.click("#find-like"),
        ]);
        await page.waitForSelector("#results:not([hidden])"); await idle();
        return [Object.keys(request.postDataJSON()), await page.isVisible("#error")];
        """,
        token=service.token("boxer"),
        large=base64.b64encode(encoded(size=(1600, 1200))).decode(),
    )
    assert said == [["image_url", "concept_id"], False]
