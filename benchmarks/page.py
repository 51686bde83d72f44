"""The page in a browser with 200 instances on 12 megapixels: frames while the pointer and the threshold move.

Needs Chromium, from the PATH or from npm. The browser draws without a graphics card, as in the tests.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.helpers.processes import WORKER, Process, edge_process
from tests.web.playground.browsing import drive
from tests.web.playground.conftest import Service
from tests.web.playground.many_instances import instances, picture

WINDOWS = {
    "1280 x 900": {"viewport": {"width": 1280, "height": 900}},
    "phone, 375 x 760 at 3x": {"viewport": {"width": 375, "height": 760}, "deviceScaleFactor": 3},
}
MEASURE = """
await page.addInitScript(() => {
  window.long = [];
  new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => window.long.push(duration)))
    .observe({ type: "longtask" });
});
const stored = { body: input.instances, contentType: "application/json" };
await page.route(/results.*[.]json$/, (route) => route.fulfill(stored));
await open(input.token);
const buffer = Buffer.from(input.large, "base64");
await page.setInputFiles("#file", { name: "large.png", mimeType: "image/png", buffer });
await page.waitForSelector("#stage:not([hidden])");
await page.waitForTimeout(500);
await page.evaluate(() => (window.long.length = 0));
await find("leaf"); await idle();
await page.waitForTimeout(3000);
return page.evaluate(async () => {
  const shown = Math.max(0, ...window.long);
  const marks = document.querySelector("#marks");
  const slider = document.querySelector("#threshold");
  const { x, y, width, height } = marks.getBoundingClientRect();
  const next = () => new Promise(requestAnimationFrame);
  const handlers = [];
  const measure = async (act) => {
    const gaps = [];
    const end = performance.now() + 4000;
    for (let k = 0, last = await next(); performance.now() < end; k++) {
      const start = performance.now();
      act(k);
      handlers.push(performance.now() - start);
      const now = await next();
      gaps.push(now - last);
      last = now;
    }
    return [...quantiles(gaps), ...quantiles(handlers.splice(0))];
  };
  const quantiles = (values) => {
    values.sort((a, b) => a - b);
    return [0.5, 0.95].map((part) => values[Math.floor(part * values.length)]);
  };
  const move = (k) => marks.dispatchEvent(new PointerEvent("pointermove", { bubbles: true,
    clientX: x + (width * ((37 * k) % 200)) / 200, clientY: y + (height * ((61 * k) % 200)) / 200 }));
  const slide = (k) => {
    slider.value = 0.25 + 0.01 * (k % 60);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  };
  return { shown, rows: { "nothing moves": await measure(() => {}), "the pointer moves": await measure(move),
    "the threshold moves": await measure(slide) } };
});
"""


def main() -> None:
    """Measure, and print a table for each size of the window."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        with edge_process(data) as (_, url):
            environment = {"S3SEG_DATA_DIR": str(data), "S3SEG_POLL_S": "0.05", "S3SEG_PUBLIC_BASE_URL": f"{url}/files"}
            worker = Process(WORKER, log=data / "worker.log", **environment)
            worker.start()
            try:
                for name, options in WINDOWS.items():
                    _measure(name, options, Service(data, url))
            finally:
                worker.kill()


def _measure(name: str, options: dict[str, object], service: Service) -> None:
    large = base64.b64encode(picture()).decode()
    token = service.token("measurer")
    said, _, _ = drive(MEASURE, url=service.url, options=options, token=token, instances=instances(), large=large)
    table = Table(title=f"{name}: longest task while the result appears {said['shown']:.0f} ms")
    for column in ("in each frame", "frame, median ms", "95 %", "handler, median ms", "95 %"):
        table.add_column(column, justify="left" if column == "in each frame" else "right")
    for row, values in said["rows"].items():
        table.add_row(row, *(f"{value:.1f}" for value in values))
    Console().print(table)
