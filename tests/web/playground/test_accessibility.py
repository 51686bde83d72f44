"""The page with axe-core, which looks for what keeps people with disabilities from using it."""

from __future__ import annotations

import base64
import os

import pytest

from tests.cloud.parts import downloads
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.slow  # a browser, 2 to 5 s a test; test_browser.py goes the whole way in `make test`

STATES = """
await page.addInitScript(input.axe);
const findings = {};
const look = async (state) => {
  const { violations, passes } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  findings[state] = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" ")}`);
  if (passes.length < 10) findings[state].push("axe did not look at the page");
};
await open(""); await look("token");
await open(input.token); await page.reload(); await page.waitForSelector("#account:not([hidden])"); await look("empty");
await choose(); await page.press("#prompts", "Enter"); await look("error");
await find("cat, dog"); await idle();
await page.click("#code summary"); await look("found");
await tool("like"); await drag([2, 1], [5, 4]);
await page.fill("#concept-name", "mug"); await page.press("#concept-name", "Enter");
await page.waitForSelector("#concept-list li"); await idle();
await page.click("#past summary"); await page.waitForSelector("#past-list li"); await look("examples");
await tool("look"); await page.click("#groups .more"); await look("chosen");
await page.click("#repair"); await press([3, 2]); await look("repair");
await page.evaluate(() => (document.querySelector("#patience").hidden = false)); await look("waiting");
const buffer = Buffer.from(input.large, "base64");
await page.setInputFiles("#file", { name: "large.png", mimeType: "image/png", buffer });
await page.waitForSelector("#tile"); await page.selectOption("#tile", "500"); await look("tiles");
const { wide, wider } = await page.evaluate(() => ({ wide: innerWidth, wider: document.documentElement.scrollWidth }));
if (wider > wide) findings.width = [`the page is ${wider} pixels wide and the window ${wide}`];
return findings;
"""
PHONE = {"viewport": {"width": 360, "height": 740}, "hasTouch": True}


@pytest.fixture(scope="session")
def axe():
    try:
        return (downloads.npm_package(downloads.AXE) / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    except downloads.MissingPartError as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no axe-core: {err}")


@pytest.mark.parametrize(
    "options", [{"colorScheme": "light"}, {"colorScheme": "dark"}, PHONE], ids=["light", "dark", "phone"]
)
def test_axe_finds_nothing_serious_in_any_state(browse, service, axe, options, request):
    large = base64.b64encode(encoded(size=(1600, 1200))).decode()
    said = browse(STATES, token=service.token(request.node.callspec.id), axe=axe, options=options, large=large)
    assert {state: found for state, found in said.items() if found} == {}
    assert len(said) == 9


def test_everything_is_reached_and_used_with_the_keyboard(browse, service):
    said = browse(
        """
        await open(input.token); await choose();
        await page.keyboard.type("cat"); await page.keyboard.press("Enter");
        await page.waitForSelector("#results:not([hidden])"); await idle();
        const seen = new Set();
        for (let k = 0; k < 60; k++) {
          await page.keyboard.press("Tab");
          seen.add(await page.evaluate(() => {
            const { activeElement: here } = document;
            const { outlineStyle } = getComputedStyle(here.matches(".choice input") ? here.nextElementSibling : here);
            return `${here.id || here.name || here.className || here.tagName} ${outlineStyle}`;
          }));
        }
        await page.focus("#groups .more"); await page.keyboard.press("Enter");
        const chosen = await page.evaluate(() => document.activeElement.id);
        await page.keyboard.press("Tab"); const next = await page.evaluate(() => document.activeElement.id);
        await page.keyboard.press("Escape");
        const back = [await page.evaluate(() => document.activeElement.className), await page.isVisible("#chosen")];
        return { seen: [...seen], chosen, next, back };
        """,
        token=service.token("typist2"),
    )
    names = {name for name, _, _ in (one.rpartition(" ") for one in said["seen"])}
    assert names >= {
        "prompts",
        "find",
        "file",
        "tool",
        "threshold",
        "more",
        "save-coco",
        "save-cutouts",
        "change-token",
    }
    assert not [one for one in said["seen"] if one.endswith(" none") and not one.startswith(("BODY", "HTML", "file"))]
    assert (said["chosen"], said["next"]) == ("chosen-name", "more-like")
    assert said["back"] == ["more", False]
