"""The page with a private bucket: pictures go straight to it, and everything is read from it."""

from __future__ import annotations

import os

import pytest

from tests.cloud.parts import downloads
from tests.cloud.parts.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, seaweed
from tests.helpers.processes import WORKER, Process
from tests.web.playground.conftest import Service, running_edge


@pytest.fixture
def bucket(tmp_path_factory):
    try:
        downloads.weed()
    except downloads.MissingPartError as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no S3 server: {err}")
    with seaweed(tmp_path_factory.mktemp("bucket")) as bucket:
        yield bucket


@pytest.fixture
def service_on_bucket(bucket, tmp_path):
    settings = {
        "S3SEG_OBJECT_STORE": "r2",
        "S3SEG_R2_ENDPOINT_URL": bucket.endpoint,
        "S3SEG_R2_BUCKET": BUCKET,
        "S3SEG_R2_ACCESS_KEY_ID": ACCESS_KEY,
        "S3SEG_R2_SECRET_ACCESS_KEY": SECRET_KEY,
        "S3SEG_R2_PUBLIC": "false",
    }
    data = tmp_path / "data"
    with running_edge(data, **settings) as (_, url):
        public = {"S3SEG_DATA_DIR": str(data), "S3SEG_POLL_S": "0.05", "S3SEG_PUBLIC_BASE_URL": f"{url}/files"}
        worker = Process(WORKER, log=data / "worker.log", **settings, **public)
        worker.start()
        try:
            yield Service(data, url)
        finally:
            worker.kill()


def allow(bucket, origin):
    rule = {"AllowedOrigins": [origin], "AllowedMethods": ["GET", "PUT"], "AllowedHeaders": ["*"]}
    bucket.client.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})


@pytest.mark.slow
def test_pictures_and_masks_pass_a_private_bucket(browse, bucket, service_on_bucket):
    allow(bucket, service_on_bucket.url)
    host = bucket.endpoint.removeprefix("http://")
    said = browse(
        """
        const sent = [];
        page.on("response", (response) => {
          const { host, pathname } = new URL(response.url());
          const seen = [response.request().method(), response.status(), pathname.includes("/results/")];
          if (host === input.bucket) sent.push(seen);
        });
        await open(input.token); await choose(); await find("cat"); await idle();
        const summary = await text("#status");
        await page.click("#past summary"); await page.waitForSelector("#past-list li");
        await page.waitForFunction(() => {
          const canvas = document.querySelector("#past-list canvas");
          return canvas.getContext("2d").getImageData(80, 50, 1, 1).data[3] === 255;
        });
        const mask = await saved("#save-mask");
        await page.reload();
        await page.waitForSelector("#results:not([hidden])"); await idle();
        return { summary, sent, mask: mask.name, again: await text("#status"), inside: await drawn(3, 2) };
        """,
        at=service_on_bucket,
        also=[host],
        token=service_on_bucket.token("ann"),
        bucket=host,
    )
    assert said["summary"] == said["again"] == "1 found: 1 cat."
    assert ["PUT", 200, False] in said["sent"]  # the picture did not pass the edge
    assert ["GET", 200, True] in said["sent"]
    assert ["GET", 200, False] in said["sent"]
    assert said["mask"] == "a.labels.png"
    assert said["inside"] > 60


@pytest.mark.slow
def test_a_bucket_that_does_not_let_the_page_read_is_named(browse, bucket, service_on_bucket):
    allow(bucket, "https://elsewhere.example")
    host = bucket.endpoint.removeprefix("http://")
    said = browse(
        """
        await open(input.token); await choose(); await find("cat");
        return [await text("#error"), await page.isVisible("#stop")];
        """,
        at=service_on_bucket,
        also=[host],
        token=service_on_bucket.token("bob"),
        expected_noise=("CORS", "404", "net::ERR_FAILED"),
    )
    edge = service_on_bucket.url.removeprefix("http://")
    assert said == [f"{edge} was not reached, or does not let this page read (a bucket needs a CORS rule).", False]
