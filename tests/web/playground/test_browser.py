"""The page in a browser: what a user does and sees."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from PIL import Image


def test_from_the_link_to_the_masks(browse, service):
    said = browse(
        """
        await open(input.token);
        const kept = await page.evaluate(() => [location.href, sessionStorage.getItem("s3seg.token")]);
        await choose();
        await find("cat, dog");
        const first = { summary: await text("#summary"), status: await text("#status"),
          rows: await texts("#groups li label"),
          inside: await drawn(3, 2), outside: await drawn(7, 5), threshold: await text("#threshold-value") };
        await page.waitForFunction(() => document.querySelector("#credits").textContent === "8 credits");
        for (const box of await page.$$("#groups h3 input")) await box.uncheck();
        const hidden = await drawn(3, 2);
        await page.fill("#threshold", "0.95");
        const strict = { summary: await text("#summary"), hints: await texts("#groups .hint:not([hidden])") };
        await page.click("#default-threshold");
        return { kept, first, hidden, strict, back: await text("#summary") };
        """,
        token=(token := service.token("linked")),
    )
    assert said["kept"] == [f"{service.url}/", token]  # the token does not stay in the address
    assert said["first"]["summary"] == "2 found"
    assert said["first"]["status"] == "2 found: 1 cat, 1 dog."
    assert said["first"]["rows"] == ["cat 10.90", "dog 10.90"]
    assert said["first"]["threshold"] == "0.50"
    assert said["first"]["inside"] > 60
    assert said["first"]["outside"] == 0
    assert said["hidden"] == 0
    assert said["strict"]["summary"] == "Nothing found"
    assert said["strict"]["hints"] == ["Nothing above 0.95; the best has 0.90."] * 2
    assert said["back"] == "2 found"


def test_what_users_type_is_text_and_never_markup(browse, service):
    words = "<img src=x onerror=alert(1)>"
    said = browse(
        """
        await open(input.token); await choose(); await find(input.words);
        return { name: await text("#groups h3 .name"), images: await page.$$eval("#groups img", (all) => all.length) };
        """,
        token=service.token("typist"),
        words=words,
    )
    assert said == {"name": words, "images": 0}


def test_a_link_from_elsewhere_does_not_sign_anybody_in_unasked(browse, service):
    host = f"edge.example:{service.url.rpartition(':')[2]}"
    said = browse(
        """
        await open(input.token, `http://${input.elsewhere}`);
        const asked = [await text("#token-problem"), await page.isVisible("#account"), page.url().includes("token")];
        await page.press("#token", "Enter");
        await page.waitForSelector("#account:not([hidden])");
        await choose(); await find("cat");  // what it reads has addresses of another host
        return [asked, await text("#summary"), await page.isVisible("#error")];
        """,
        token=service.token("guest"),
        elsewhere=host,
        host=host,
        expected_noise=("Cross-Origin-Opener-Policy",),  # which plain HTTP does not have
    )
    warning = "The link brought a token. Use it only if you know who gave you the link."
    assert said == [[warning, False, False], "1 found", False]


def test_without_a_token_it_is_asked_for_and_a_wrong_one_is_refused(browse, service):
    said = browse(
        """
        await open("");
        const focused = () => page.evaluate(() => document.activeElement.id);
        const asked = [await page.isVisible("#token-form"), await focused(), await page.isVisible("#account")];
        await page.fill("#token", "wrong"); await page.press("#token", "Enter");
        await page.waitForSelector("#token-problem:not([hidden])");
        const refused = [await text("#token-problem"), await focused()];
        await page.fill("#token", input.token); await page.press("#token", "Enter");
        await page.waitForSelector("#account:not([hidden])");
        return { asked, refused, after: [await page.isVisible("#token-form"), await text("#credits")] };
        """,
        token=service.token("newcomer"),
        expected_noise=("401",),
    )
    assert said["asked"] == [True, "token", False]
    assert said["refused"] == ["The token is not a JWT.", "token"]
    assert said["after"] == [False, "10 credits"]


def test_an_error_is_shown_in_the_services_own_words(browse, service):
    said = browse(
        """
        await open(input.token); await choose();
        await find(Array.from({ length: 11 }, (_, k) => `cat ${k}`).join(","));
        const poor = await text("#error");
        await find("cat, ".repeat(3) + Array.from({ length: 17 }, (_, k) => `dog ${k}`).join(","));
        return { poor, many: await text("#error"), results: await page.isVisible("#results") };
        """,
        token=service.token("poor"),
        expected_noise=("402",),
    )
    assert "credit" in said["poor"]
    assert said["many"] == "At most 16 things at a time; these are 18."
    assert said["results"] is False


def test_waiting_can_be_stopped_and_costs_nothing(browse, idle_service):
    said = browse(
        """
        await open(input.token); await choose();
        await page.fill("#prompts", "cat"); await page.press("#prompts", "Enter");
        await page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Waiting for"));
        const waiting = [await page.isVisible("#stop"), await page.isVisible(".spinner")];
        const cancelled = page.waitForResponse((response) => response.url().endsWith("/cancel"));
        await page.keyboard.press("Escape");
        await cancelled;
        await page.waitForFunction(() => document.querySelector("#credits").textContent === "10 credits");
        const shown = await Promise.all(["#stop", ".spinner", "#error"].map((one) => page.isVisible(one)));
        return [waiting, shown];
        """,
        at=idle_service,
        token=idle_service.token("waiting"),
    )
    assert said == [[True, True], [False, False, False]]


@pytest.mark.slow
def test_a_limit_is_counted_down(browse, idle_service):
    said = browse(
        """
        await open(input.token); await choose();
        for (let k = 0; k < 5; k++) {
          await page.fill("#prompts", `cat ${k}`);
          const accepted = page.waitForResponse((response) => response.url().endsWith("/segment"));
          await page.press("#prompts", "Enter"); await accepted;
        }
        await page.press("#prompts", "Enter");
        await page.waitForFunction(() => document.querySelector("#status").textContent.includes("limit"));
        return [await text("#status"), await text("#clock"), await page.isVisible("#stop")];
        """,
        at=idle_service,
        token=idle_service.token("hurried"),
        expected_noise=("429",),
    )
    assert re.fullmatch(r"Waiting: the limit of 5 .* in \d+ seconds\.", said[0])
    assert re.fullmatch(r"\d+ s", said[1])
    assert said[2] is True


@pytest.mark.slow
def test_results_can_be_saved(browse, service):
    said = browse(
        """
        await open(input.token); await choose(); await find("cat");
        return [await saved("#save-overlay"), await saved("#save-mask"), await saved("#save-instances")];
        """,
        token=service.token("saver"),
    )
    assert [one["name"] for one in said] == ["a.overlay.png", "a.labels.png", "a.instances.json"]
    overlay, labels, instances = (base64.b64decode(one["body"]) for one in said)
    assert Image.open(io.BytesIO(overlay)).size == (8, 6)
    drawn = Image.open(io.BytesIO(labels))
    assert (drawn.getpixel((3, 2)), drawn.getpixel((7, 5))) == (1, 0)
    assert json.loads(instances)["results"][0]["prompt"] == "cat"


def test_the_drawing_that_it_brings_can_be_searched(browse, service):
    said = browse(
        """
        await open(input.token); await page.click("#example");
        await page.waitForFunction(() => document.querySelector("#prompts").value !== "");
        return [await page.inputValue("#prompts"), await text("#name"), await text("#size"), await text("#cost")];
        """,
        token=service.token("curious"),
    )
    assert said == ["star, red circle", "shapes.png", "960 × 640", "2 things, 2 credits."]
