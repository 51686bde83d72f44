"""Reloads, past results, and tasks that nobody works on."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # a browser, 2 to 5 s a test; test_browser.py goes the whole way in `make test`

SUBMIT = """
await open(input.token); await choose();
await page.fill("#prompts", "cat");
await Promise.all([page.waitForResponse((one) => one.url().endsWith("/segment")), page.press("#prompts", "Enter")]);
await page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Waiting for"));
"""


def test_who_waits_in_vain_is_told_and_can_wait_on_or_give_up(browse, idle_service):
    said = browse(
        """
        await page.clock.install();
        const submitted = (async () => {"""
        + SUBMIT
        + """})();
        let done = false; submitted.then(() => (done = true));
        while (!done) { await page.clock.runFor(200); await new Promise((resolve) => setTimeout(resolve, 20)); }
        const early = await page.isVisible("#patience");
        await page.clock.runFor(6000); await page.waitForSelector("#patience:not([hidden])");
        const told = await text("#patience-text");
        await page.click("#keep-waiting");
        const quiet = await page.isVisible("#patience");
        await page.clock.runFor(61000); await page.waitForSelector("#patience:not([hidden])");
        const cancelled = page.waitForResponse((response) => response.url().endsWith("/cancel"));
        await page.click("#give-up"); await cancelled;
        await page.waitForFunction(() => document.querySelector("#credits").textContent === "10 credits");
        return { early, told, quiet, end: await page.isVisible("#patience") };
        """,
        at=idle_service,
        token=idle_service.token("patient"),
    )
    assert said["early"] is said["quiet"] is said["end"] is False
    assert said["told"].startswith("Nobody works on your task yet: no worker of the service has taken it in ")
    assert "s3seg worker" in said["told"]  # a visitor of this machine may be the one who runs the service


def test_a_reload_finds_the_waiting_task_again_and_can_still_cancel_it(browse, idle_service):
    said = browse(
        SUBMIT
        + """
        await page.reload();
        await page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Waiting for"));
        const shown = [await text("#name"), await text("#size"), await page.isVisible("#stop")];
        const cancelled = page.waitForResponse((response) => response.url().endsWith("/cancel"));
        await page.click("#stop");
        return [shown, (await cancelled).status()];
        """,
        at=idle_service,
        token=idle_service.token("reloading"),
    )
    assert said == [["a.png", "8 × 6", True], 200]


def test_who_loses_the_connection_is_told_that_the_task_goes_on(browse, idle_service):
    said = browse(
        SUBMIT
        + """
        await page.route(/api.v1.tasks/, (route) => route.abort());
        await page.waitForSelector("#error:not([hidden])");
        const lost = await text("#error");
        await page.unroute(/api.v1.tasks/);
        await page.reload();
        await page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Waiting for"));
        return [lost, await page.isVisible("#error")];
        """,
        at=idle_service,
        token=idle_service.token("cutoff"),
        expected_noise=("ERR_FAILED",),
    )
    assert said[0] == (
        f"The service at {idle_service.url}/ was not reached. "
        "Your task is not lost: reload this page to go on waiting for it."
    )
    assert said[1] is False


def test_a_reload_shows_the_result_again(browse, service):
    said = browse(
        """
        await open(input.token); await choose(); await find("cat"); await idle();
        await page.reload();
        await page.waitForSelector("#results:not([hidden])"); await idle();
        return [await text("#status"), await text("#name"), await drawn(3, 2)];
        """,
        token=service.token("again"),
    )
    assert said[:2] == ["1 found: 1 cat.", "a.png"]
    assert said[2] > 60


def test_past_results_have_a_picture_each_and_open_again(browse, service):
    said = browse(
        """
        await open(input.token); await choose(); await find("cat"); await idle();
        await find("dog, bird");
        await page.waitForFunction(() => document.querySelector("#status").textContent.includes("dog"));
        await idle();
        const kept = await page.evaluate(() => JSON.parse(localStorage.getItem("s3seg.past")));
        await page.click("#past summary");
        await page.waitForFunction(() => document.querySelectorAll("#past-list li").length === 2);
        const listed = await texts("#past-list .what");
        await page.waitForFunction(() => [...document.querySelectorAll("#past-list canvas")].every((canvas) =>
          canvas.getContext("2d").getImageData(80, 50, 1, 1).data[3] === 255));
        await page.click("#past-list button >> nth=1");
        await page.waitForFunction(() => document.querySelector("#status").textContent === "1 found: 1 cat.");
        const code = await page.isVisible("#code");
        await page.click("#forget-past");
        const left = [await page.isVisible("#past"), await page.evaluate(() => localStorage.getItem("s3seg.past"))];
        return { kept, listed, code, left };
        """,
        token=service.token("historian"),
    )
    assert all(set(entry) == {"id", "name", "user"} for entry in said["kept"])  # ids and names, and nothing else
    assert said["listed"] == ["dog, bird", "cat"]
    assert said["code"] is False  # how it was asked is not stored
    assert said["left"] == [False, "[]"]


def test_what_was_deleted_on_the_service_is_no_longer_listed(browse, service):
    said = browse(
        """
        await open(input.token); await choose(); await find("cat"); await idle();
        await page.evaluate(async () => {
          const [{ id }] = JSON.parse(localStorage.getItem("s3seg.past"));
          const headers = { Authorization: `Bearer ${sessionStorage.getItem("s3seg.token")}` };
          await fetch(`api/v1/results/${id}`, { method: "DELETE", headers });
        });
        await page.reload();
        await page.waitForSelector("#error:not([hidden])");
        const kept = await page.evaluate(() => localStorage.getItem("s3seg.past"));
        return [await text("#error"), await page.isVisible("#past"), kept];
        """,
        token=service.token("deleter"),
        expected_noise=("404",),
    )
    assert said == ["This result no longer exists.", False, "[]"]


def test_another_user_of_the_browser_sees_nothing_of_it(browse, service):
    said = browse(
        """
        await open(input.token); await choose(); await find("cat"); await idle();
        const mine = await page.isVisible("#past");
        await open(input.other);
        await page.reload();
        await page.waitForSelector("#account:not([hidden])");
        return [mine, await page.isVisible("#past"), await page.isVisible("#results")];
        """,
        token=service.token("one"),
        other=service.token("another"),
    )
    assert said == [True, False, False]


def test_a_storage_with_something_else_in_it_does_no_harm(browse, service):
    said = browse(
        """
        await open("");
        await page.evaluate(() => {
          localStorage.setItem("s3seg.past", '[{"id":"../x","name":1},null,{"id":"a"}]');
          sessionStorage.setItem("s3seg.open", "{");
        });
        await open(input.token); await page.reload();
        await page.waitForSelector("#account:not([hidden])");
        return [await page.isVisible("#past"), await page.isVisible("#error")];
        """,
        token=service.token("odd"),
    )
    assert said == [False, False]
