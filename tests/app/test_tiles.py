"""Tiles: `s3seg.local`, the service over HTTP and `Segmenter` find the same."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

import s3seg
from s3seg.app import local_keys, whole_app
from s3seg.app.settings import Settings
from s3seg.client import AsyncClient
from s3seg.errors import InferenceError, InvalidRequestError
from s3seg.results import masks
from tests.helpers.small_things import circles

pytestmark = pytest.mark.anyio
PICTURE = circles()


def settings(**options) -> Settings:
    chosen = {"decode_processes": 0, **options}  # none to start: test_in_process.py has them
    return Settings(_env_file=None, checkpoint="embedded", device="cpu", rate_limits="off", **chosen)


@pytest.fixture(scope="module")
def expected() -> s3seg.Segmentation:
    return s3seg.Segmenter("embedded", device="cpu").segment(PICTURE, "red circle", tile=300)


def same(found: s3seg.Segmentation, expected: s3seg.Segmentation) -> None:
    assert found.prompt == expected.prompt
    assert len(found) == len(expected) >= 9
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert (np.diag(masks.iou(found.rles, expected.rles)) > 0.99).all()


async def test_local_finds_what_a_segmenter_finds(expected):
    chosen = settings(object_store="memory", task_store="memory", welcome_credits=100, max_tiles=9)
    async with s3seg.local(chosen) as service:
        stored = await service.upload(PICTURE)
        assert len(await service.segment(stored, "red circle")) < len(expected)
        same(await service.segment(stored, "red circle", tile=300), expected)
        task = await service.finished(await service.submit(stored, ["red circle"], tile=300))
        same((await service.results(task))[0], expected)
        with pytest.raises(InferenceError, match="more than 9; choose larger ones"):
            await service.segment(stored, "red circle", tile=32)
        with pytest.raises(InvalidRequestError, match="tile is 'auto' or a whole number of pixels, 32 or more"):
            await service.segment(stored, "red circle", tile=31)


async def test_the_service_gives_a_client_what_a_segmenter_finds_for_one_credit(expected, tmp_path):
    chosen = settings(data_dir=tmp_path, public_base_url="http://edge.example/files", max_tiles=20)
    app = whole_app(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        client = AsyncClient("http://edge.example", local_keys(chosen).mint("ann"), http=http)
        credits = (await client.me()).credits
        found = await client.segment(PICTURE, "red circle", tile=300)
        same(found, expected)
        assert (await client.me()).credits == credits - 1
        async for _, one in client.segment_many([PICTURE], ["red circle"], tile=300):
            same(one[0], expected)
        image = await client.upload(PICTURE)
        submitted = await client.submit(image.image_url, "red circle", tile=300, idempotency_key="k")
        await client.wait(submitted.task_id)
        same((await client.segmentations(submitted.task_id))[0], expected)
        again = await client.submit(image.image_url, "red circle", tile=300, idempotency_key="k")
        assert again.task_id == submitted.task_id
        for other in (301, "auto", None):
            with pytest.raises(InvalidRequestError):
                await client.submit(image.image_url, "red circle", tile=other, idempotency_key="k")
        credits = (await client.me()).credits
        with pytest.raises(InferenceError, match=r"more than 20; choose larger ones.*refunded"):
            await client.segment(PICTURE, "red circle", tile=32)
        assert (await client.me()).credits == credits
        for wrong in (31, "all", 2**40, 64.5, True):
            with pytest.raises(InvalidRequestError, match="tile"):
                await client.segment(PICTURE, "red circle", tile=wrong)
