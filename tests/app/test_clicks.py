"""Clicks: `s3seg.local`, the service over HTTP and `Segmenter` give the same masks. The click head is random."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import httpx
import pytest

import s3seg
from s3seg.app import local_keys, whole_app
from s3seg.app.settings import Settings
from s3seg.client import AsyncClient
from s3seg.errors import InferenceError, InvalidRequestError
from tests.helpers.clickable import write_checkpoint_without_clicks, write_clickable_checkpoint

pytestmark = pytest.mark.anyio
STREET = Path(__file__).parents[2] / "examples" / "pictures" / "street.png"
OBJECTS = [s3seg.Clicks([(400, 300), (10, 20)], [1, 0]), s3seg.Clicks(box=(10, 10, 300, 200))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_clickable_checkpoint(tmp_path_factory.mktemp("clickable") / "c")


def settings(checkpoint: Path | str, **options) -> Settings:
    chosen = {"decode_processes": 0, **options}  # none to start: test_in_process.py has them
    return Settings(_env_file=None, checkpoint=str(checkpoint), device="cpu", rate_limits="off", **chosen)


@pytest.fixture(scope="module")
def expected(checkpoint) -> list[s3seg.Segmentation]:
    return s3seg.Segmenter(checkpoint, device="cpu").click_many(STREET, OBJECTS)


@pytest.fixture(scope="module")
def alone(checkpoint) -> list[s3seg.Segmentation]:
    """The objects one by one: batches of other sizes differ in the last bits."""
    segmenter = s3seg.Segmenter(checkpoint, device="cpu")
    return [segmenter.click_many(STREET, [one])[0] for one in OBJECTS]


def same(found: s3seg.Segmentation, expected: s3seg.Segmentation) -> None:
    unlike = {"timings": {}, "source": None, "image": None}
    assert dataclasses.replace(found, **unlike) == dataclasses.replace(expected, **unlike)


async def test_local_gives_what_a_segmenter_gives(checkpoint, expected, alone):
    chosen = settings(checkpoint, object_store="memory", task_store="memory", welcome_credits=100)
    async with s3seg.local(chosen) as service:
        stored = await service.upload(STREET)
        found = await service.click_many(stored, [*OBJECTS, OBJECTS[0]])
        for one, other in zip(found, [*expected, expected[0]], strict=True):
            same(one, other)
        same(await service.click(STREET, [(400, 300), (10, 20)], [1, 0]), alone[0])


async def test_the_service_gives_a_client_what_a_segmenter_gives_for_a_credit_an_object(
    checkpoint, expected, alone, tmp_path
):
    chosen = settings(checkpoint, data_dir=tmp_path, public_base_url="http://edge.example/files")
    app = whole_app(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        client = AsyncClient("http://edge.example", local_keys(chosen).mint("ann"), http=http)
        credits = (await client.me()).credits
        found = await client.click_many(STREET, [*OBJECTS, OBJECTS[0]])
        for one, other in zip(found, [*expected, expected[0]], strict=True):
            same(one, other)
        same(await client.click(STREET, box=(10, 10, 300, 200)), alone[1])
        assert (await client.me()).credits == credits - 3
        with pytest.raises(InferenceError, match=r"4000,1 is not inside the picture.*refunded"):
            await client.click(STREET, [(4000, 1)])
        assert (await client.me()).credits == credits - 3
        (last, *_) = (await client.results()).results
        assert last.text_prompt == "point 4000,1"
        for wrong in ([], [OBJECTS[0]] * 0, ["cat"], [s3seg.Clicks([(n, 1)]) for n in range(17)]):
            with pytest.raises(InvalidRequestError):
                await client.click_many(STREET, wrong)


async def test_a_service_whose_checkpoint_has_no_head_says_so_and_refunds(tmp_path):
    headless = write_checkpoint_without_clicks(tmp_path / "headless")
    chosen = settings(headless, object_store="memory", task_store="memory", welcome_credits=100)
    async with s3seg.local(chosen) as service:
        with pytest.raises(InferenceError, match="has no head for clicks"):
            await service.click(STREET, [(400, 300)])
