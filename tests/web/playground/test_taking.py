"""How pictures come onto the page."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # a browser, 2 to 5 s a test; test_browser.py goes the whole way in `make test`

FILE = """
const options = { bubbles: true, cancelable: true };
const files = ({ picture, name, type }) => {
  const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  return data;
};
"""


@pytest.mark.parametrize(
    "event",
    [
        'document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: files(input), ...options }))',
        'document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files(input), ...options }))',
    ],
    ids=["paste", "drop"],
)
def test_a_picture_is_pasted_or_dropped_and_searched(browse, service, event, request):
    said = browse(
        f"""
        await open(input.token);
        const file = {{ ...input, name: "c.png", type: "image/png" }};
        const handled = await page.evaluate((input) => {{ {FILE} return !{event}; }}, file);
        await page.waitForSelector("#stage:not([hidden])");
        await find("cat");
        return [handled, await text("#name"), await text("#size"), await text("#summary")];
        """,
        token=service.token(request.node.callspec.id),
    )
    assert said == [True, "c.png", "8 × 6", "1 found"]


def test_of_several_pictures_the_first_is_taken_and_the_others_are_told(browse, service):
    said = browse(
        f"""
        await open(input.token);
        await page.evaluate((input) => {{
          {FILE}
          const dataTransfer = files({{ ...input, name: "first.png", type: "image/png" }});
          dataTransfer.items.add(new File(["x"], "second.png", {{ type: "image/png" }}));
          document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer, ...options }}));
        }}, input);
        await page.waitForSelector("#error:not([hidden])");
        return [await text("#name"), await text("#error")];
        """,
        token=service.token("several"),
    )
    assert said[0] == "first.png"
    assert said[1].startswith("One picture at a time: this is first.png, and 1 more were left out.")


def test_the_page_shows_where_to_drop(browse, service):
    said = browse(
        f"""
        await open(input.token);
        const fire = (kind) => page.evaluate(([input, kind]) => {{
          {FILE}
          document.body.dispatchEvent(new DragEvent(kind, {{ dataTransfer: files(input), ...options }}));
          return document.body.classList.contains("dropping");
        }}, [{{ ...input, name: "c.png", type: "image/png" }}, kind]);
        return [await fire("dragenter"), await fire("dragover"), await fire("dragleave")];
        """,
        token=service.token("dragger"),
    )
    assert said == [True, True, False]


def test_what_is_no_picture_is_refused_and_the_one_before_stays(browse, service):
    said = browse(
        """
        await open(input.token); await choose();
        const give = (name, buffer) => page.setInputFiles("#file", { name, mimeType: "image/png", buffer });
        await give("n".repeat(300) + ".png", Buffer.from("no"));
        await page.waitForSelector("#error:not([hidden])");
        const refused = [(await text("#error")).slice(300), await text("#name")];
        await give("big.png", Buffer.alloc(11 * 2 ** 20));
        await page.waitForFunction(() => document.querySelector("#error").textContent.includes("MB"));
        const fits = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
        return [refused, await text("#error"), fits];
        """,
        token=service.token("refused"),
    )
    refused, big, fits = said
    assert refused == [".png is no picture that this browser can show. The service takes PNG, JPEG and WebP.", "a.png"]
    assert big == "big.png has 11.0 MB, and the service takes at most 10."
    assert fits
