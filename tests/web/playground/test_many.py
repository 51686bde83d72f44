"""Many instances on a large picture: what the page does for each movement of the pointer, and what it keeps."""

from __future__ import annotations

import base64

import pytest

from tests.web.playground.many_instances import COUNT, instances, picture

pytestmark = pytest.mark.slow  # a browser, 2 to 5 s a test; test_browser.py goes the whole way in `make test`


def test_a_movement_of_the_pointer_draws_one_instance_and_not_two_hundred(browse, service):
    said = browse(
        """
        await page.addInitScript(() => {
          window.drawings = [];
          const draw = CanvasRenderingContext2D.prototype.drawImage;
          CanvasRenderingContext2D.prototype.drawImage = function (...values) {
            window.drawings.push(this.canvas.id);
            return draw.apply(this, values);
          };
        });
        const stored = { body: input.instances, contentType: "application/json" };
        await page.route(/results.*[.]json$/, (route) => route.fulfill(stored));
        await open(input.token);
        const buffer = Buffer.from(input.large, "base64");
        await page.setInputFiles("#file", { name: "large.png", mimeType: "image/png", buffer });
        await page.waitForSelector("#stage:not([hidden])");
        await find("leaf"); await idle();
        await page.waitForFunction(() => window.drawings.filter((id) => id === "").length >= 200);
        const spot = async (x, y) => {
          const box = await page.locator("#marks").boundingBox();
          await page.mouse.move(box.x + (x / 4000) * box.width, box.y + (y / 3000) * box.height);
          await page.evaluate(async () => { for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame); });
          const pointed = await text("#groups .pointed .name");
          return [pointed, await page.evaluate(() => window.drawings.splice(0).length)];
        };
        await page.evaluate(async () => {
          for (let last = -1; last !== window.drawings.length; ) {
            last = window.drawings.length;
            await new Promise((resolve) => setTimeout(resolve, 300));
          }
          window.drawings.length = 0;
        });
        const first = await spot(50, 50), again = await spot(60, 60), second = await spot(50, 340);
        const { elements, canvases, pixels } = await page.evaluate(() => {
          const all = [...document.querySelectorAll("canvas")];
          return { elements: document.querySelectorAll("*").length, canvases: all.length,
            pixels: Math.max(...all.map((canvas) => canvas.width * canvas.height)) };
        });
        return { first, again, second, elements, canvases, pixels, summary: await text("#summary") };
        """,
        token=service.token("many"),
        instances=instances(),
        large=base64.b64encode(picture()).decode(),
    )
    assert said["summary"] == "200 found"
    assert said["first"] == ["leaf 1", 2]  # the faded copy of all, and the one
    assert said["again"] == ["leaf 1", 0]  # nothing has changed
    assert said["second"] == ["leaf 21", 2]
    assert said["canvases"] == 2
    assert said["pixels"] < 2_000_000  # of the size on the page, not of the picture
    assert said["elements"] < 15 * COUNT
