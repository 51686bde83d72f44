"""Drives the page in Chromium with Playwright; errors of the page and requests to other hosts fail the test."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.cloud.parts import downloads
from tests.helpers.pictures import encoded

SCRIPT = """
const { readFileSync } = require("node:fs");
const { chromium } = require("playwright-core");
const input = JSON.parse(readFileSync(0, "utf8"));
const picture = { name: "a.png", mimeType: "image/png", buffer: Buffer.from(input.picture, "base64") };

(async () => {
  const browser = await chromium.launch({
    executablePath: input.browser, args: [
      "--no-sandbox", "--headless", "--disable-gpu", "--host-resolver-rules=MAP edge.example 127.0.0.1",
    ],
  });
  const page = await browser.newPage(input.options);
  page.setDefaultTimeout(30000);
  const noise = [];
  const hosts = new Set();
  page.on("console", (message) => { if (message.type() === "error") noise.push(message.text()); });
  page.on("pageerror", (error) => noise.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith("blob:")) hosts.add(new URL(request.url()).host); });
  const open = (token, url = input.url) => page.goto(`${url}/${token ? `#token=${token}` : ""}`);
  const choose = async () => {
    await page.setInputFiles("#file", picture);
    await page.waitForSelector("#stage:not([hidden])");
  };
  const find = async (words) => {
    await page.fill("#prompts", words);
    await page.press("#prompts", "Enter");
    await page.waitForSelector("#results:not([hidden]), .error:not([hidden])");
  };
  // a drag over a picture of 8 x 6 from one point to another
  const drag = async (from, to) => {
    await page.locator("#marks").scrollIntoViewIfNeeded();
    const { x, y, width, height } = await page.locator("#marks").boundingBox();
    const at = ([column, row]) => [x + (column / 8) * width, y + (row / 6) * height];
    await page.mouse.move(...at(from));
    await page.mouse.down();
    await page.mouse.move(...at(to), { steps: 3 });
    await page.mouse.up();
  };
  const press = (at) => drag(at, at);
  const tool = (name) => page.check(`input[name=tool][value=${name}]`, { force: true });
  const idle = () => page.waitForSelector("#progress.idle", { state: "attached" });
  const textOf = (path) => readFileSync(path, "utf8");
  const text = (selector) => page.textContent(selector);
  const texts = (selector) => page.$$eval(selector, (all) => all.map((one) => one.textContent.trim()));
  // how opaque the drawing is over the pixel (x, y) of a picture of 8 x 6
  const drawn = (x, y) => page.evaluate(async ([x, y]) => {
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    const canvas = document.querySelector("#overlay");
    const at = [((x + 0.5) / 8) * canvas.width, ((y + 0.5) / 6) * canvas.height].map(Math.floor);
    return canvas.getContext("2d").getImageData(...at, 1, 1).data[3];
  }, [x, y]);
  const saved = async (button) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
    return { name: download.suggestedFilename(), body: readFileSync(await download.path()).toString("base64") };
  };
  try {
    const said = await (async () => { CODE })();
    console.log(JSON.stringify({ said, noise, hosts: [...hosts] }));
  } finally {
    await browser.close();
  }
})().catch((error) => { console.error(error); process.exit(1); });
"""


def drive(code, *, url, options=None, **more):
    """Run code in a page that is not open yet; return what it returns, errors of the page, and hosts that it called.

    Raises:
        MissingPartError: There is no browser, or nothing to drive it.
    """
    browser, libraries = downloads.chromium()
    value = {
        "url": url,
        "browser": str(browser),
        "options": options or {},
        "picture": base64.b64encode(encoded()).decode(),
        **more,
    }
    # a folder whose path leaves room for the browser's sockets, whose paths have 108 characters at most
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        (script := Path(folder, "browse.cjs")).write_text(SCRIPT.replace("CODE", code))
        paths = {"NODE_PATH": str(downloads.npm_package(downloads.PLAYWRIGHT)), "TMPDIR": folder}
        if libraries is not None:
            paths["LD_LIBRARY_PATH"] = str(libraries)
        done = subprocess.run(
            [downloads.node(), script],
            input=json.dumps(value),
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["said"], answer["noise"], set(answer["hosts"])


@pytest.fixture
def browse(service):
    """Runs code in a page that is not open yet; gives what it returns, if the page complained of nothing."""

    def run(code, *, expected_noise=(), at=service, host=None, also=(), **more):
        try:
            said, noise, hosts = drive(code, url=at.url, **more)
        except downloads.MissingPartError as err:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no browser: {err}")
        complaints = [line for line in noise if not any(word in line for word in expected_noise)]
        assert complaints == []  # breaches of the content security policy among them
        assert hosts == {host or at.url.removeprefix("http://"), *also}
        return said

    return run
