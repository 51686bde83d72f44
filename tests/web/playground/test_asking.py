"""Asking by boxes, clicks and concepts, with the mouse and with keys."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # a browser, 2 to 5 s a test; test_browser.py goes the whole way in `make test`

START = "await open(input.token); await choose();"


def test_boxes_ask_for_others_like_these(browse, service):
    said = browse(
        START
        + """
        const bodies = [];
        page.on("request", (request) => {
          const { pathname } = new URL(request.url());
          const asked = [request.method(), pathname.split("/").pop(), request.postData()];
          if (request.method() !== "GET") bodies.push(asked);
        });
        await tool("like"); await drag([2, 1], [5, 4]);
        await tool("not"); await drag([6, 1], [8, 3]);
        const told = await text("#examples-text");
        await page.click("#find-like");
        await page.waitForSelector("#results:not([hidden])");
        await idle();
        const concepts = await page.evaluate(() => document.querySelectorAll("#concept-list li").length);
        return { told, bodies, summary: await text("#status"), concepts, credits: await text("#credits") };
        """,
        token=service.token("boxes"),
    )
    assert said["told"] == "1 example, 1 not like it"
    asked = [(method, last) for method, last, _ in said["bodies"]]
    assert asked[0] == ("POST", "upload")
    assert asked[1:3] == [("POST", "concepts"), ("POST", "segment")]
    assert asked[3][0] == "DELETE"  # what was made for one search does not stay
    assert '"boxes":[[2,1,5,4]],"negative_boxes":[[6,1,8,3]]' in said["bodies"][1][2]
    assert said["summary"] == "1 found: 1 like this."


def test_what_is_not_meant_is_not_enough(browse, service):
    said = browse(
        START
        + """
        await tool("not"); await drag([2, 1], [5, 4]); await page.click("#find-like");
        const error = await text("#error");
        await page.click("#undo-example");
        return [error, await page.isVisible("#examples")];
        """,
        token=service.token("negative"),
    )
    assert said[0].startswith("Draw a box around something to find, too")
    assert said[1] is False


def test_a_found_instance_is_an_example_and_one_typed_word_goes_with_it(browse, service):
    said = browse(
        START
        + """
        await find("cat"); await idle();
        await press([3, 2]);
        const chosen = await text("#chosen-name");
        await page.click("#more-like"); await page.check("#with-words");
        const [request] = await Promise.all([
          page.waitForRequest((one) => one.url().endsWith("/concepts") && one.method() === "POST"),
          page.click("#find-like"),
        ]);
        return [chosen, request.postDataJSON()];
        """,
        token=service.token("similar"),
    )
    chosen, body = said
    assert chosen == "cat 1 · 0.90"
    assert (body["name"], body["words"]) == ("cat", "cat")
    assert body["examples"][0]["boxes"] == [[2, 1, 5, 4]]


def test_a_box_is_drawn_with_keys_and_said(browse, service):
    said = browse(
        START
        + """
        await tool("like"); await page.focus("#marks");
        const heard = [];
        const press = async (key, times = 1) => {
          for (let k = 0; k < times; k++) await page.keyboard.press(key);
          heard.push(await text("#spoken"));
        };
        await press("ArrowLeft", 2); await press("Enter"); await press("ArrowRight", 3); await press("ArrowDown", 2);
        await press("Enter");
        await page.keyboard.press("Delete");
        return [heard, await page.isVisible("#examples")];
        """,
        token=service.token("keys"),
    )
    assert said == [["2, 3", "Box from 2, 3", "5, 3", "5, 5", "1 example"], False]


def test_clicks_repair_a_mask_and_the_old_one_can_be_put_back(browse, service):
    said = browse(
        START
        + """
        await find("cat"); await idle();
        const masks = async () => [await drawn(3, 2), await drawn(6, 2)].map((alpha) => alpha > 40);
        const before = await masks();
        await page.click("#groups .more"); await page.click("#repair");
        await press([6.5, 2.5]);
        await page.check("input[name=side][value='0']", { force: true }); await press([7.5, 5.5]);
        const [request] = await Promise.all([
          page.waitForRequest((one) => one.url().endsWith("/segment")), page.click("#send-repair"),
        ]);
        await page.waitForFunction(() => document.querySelector("#chosen-name").textContent.includes("repaired"));
        const after = await masks();
        const coco = JSON.parse(Buffer.from((await saved("#save-coco")).body, "base64"));
        await page.click("#end-repair"); await page.click("#put-back");
        return { before, after, back: await masks(), asked: request.postDataJSON().clicks, coco: coco.annotations,
          name: await text("#chosen-name"), score: await text("#groups .score") };
        """,
        token=service.token("repairer"),
    )
    assert said["before"] == said["back"] == [True, False]
    assert said["after"] == [True, True]
    assert said["asked"] == [{"points": [[6, 2], [7, 5]], "labels": [1, 0], "box": [2, 1, 7, 4]}]
    assert [one["bbox"] for one in said["coco"]] == [[2, 1, 5, 3]]  # downloads have the repaired mask
    assert said["name"] == "cat 1 · 0.90"
    assert said["score"] == "0.90"


def test_what_the_model_has_not_learnt_is_not_offered_but_explained(browse, service):
    said = browse(
        """
        await page.route(/api.v1.results.[0-9a-f-]{36}$/, async (route) => {
          const response = await route.fetch();
          const body = await response.json();
          body.data.metadata.prompt_kinds = ["words"];
          await route.fulfill({ response, json: body });
        });
        """
        + START
        + """
        await find("cat"); await idle();
        await page.click("#groups .more");
        const seen = await Promise.all(["#repair", "#more-like", "#tools"].map((one) => page.isVisible(one)));
        return [seen, await text("#no-clicks")];
        """,
        token=service.token("limited"),
    )
    assert said[0] == [False, False, False]
    assert "takes no boxes" in said[1]
    assert "cannot be repaired by clicks" in said[1]


def test_a_concept_is_kept_found_on_another_picture_and_deleted(browse, service):
    said = browse(
        START
        + """
        await tool("like"); await drag([2, 1], [5, 4]);
        await page.fill("#concept-name", input.name); await page.press("#concept-name", "Enter");
        await page.waitForSelector("#concept-list li");
        const kept = await text("#concept-list .name");
        const images = await page.$$eval("#concept-list img", (all) => all.length);
        await page.setInputFiles("#file", { ...picture, name: "b.png" });
        await page.waitForFunction(() => document.querySelector("#name").textContent === "b.png");
        await page.click("#concept-list button >> nth=0");
        await page.waitForSelector("#results:not([hidden])"); await idle();
        const found = await text("#status");
        await page.click("#concept-list button >> nth=1");
        await page.waitForFunction(() => !document.querySelector("#concept-list li"));
        return { kept, images, found, focused: await page.evaluate(() => document.activeElement.textContent.trim()) };
        """,
        token=service.token("keeper"),
        name="<img src=x>",
    )
    assert said["kept"] == "<img src=x> 1 example"
    assert said["images"] == 0
    assert said["found"] == "1 found: 1 <img src=x>."
    assert said["focused"] == "Concepts"
