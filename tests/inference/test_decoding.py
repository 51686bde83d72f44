"""Workers read pictures in processes: a slow one ends its own task, and delays no other."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from s3seg import checkpoints
from s3seg.decoding import DecodingOptions, DecodingPool
from s3seg.errors import ImageDecodeError
from s3seg.inference.network import ResizedImage
from s3seg.inference.reading import PictureReader
from s3seg.inference.stages import Sam3Network
from tests.helpers.attacks import slow_jpeg
from tests.helpers.inference_system import STREET, InferenceSystem, ScriptedNetwork
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio
READ = "s3seg.inference.decoding:read_resized"


class ReadingNetwork(ScriptedNetwork):
    """Reads pictures as the real network does, for an input of 8 pixels."""

    async def read_in(self, pool, content, *, name, user_id):
        limits = {"side": 8, "max_pixels": 10**8, "max_memory": 10**9}
        fields, pixels = await pool.run(content, user_id=user_id, name=name, **limits)
        assert len(pixels) == 3 * 8 * 8
        return ResizedImage(None, tuple(fields["size"]))


async def test_a_process_reads_the_same_pixels_as_a_thread():
    network = Sam3Network(checkpoints.resolve(None), device="cpu", dtype="float32", max_pixels=1_000_000)
    pool = DecodingPool(READ, DecodingOptions(processes=1))
    try:
        for content in (STREET, encoded("JPEG", (1200, 700)), encoded("WEBP", (3, 5))):
            here = network.read(content, name="a")
            there = await network.read_in(pool, content, name="a", user_id="ann")
            assert here.size == there.size
            assert torch.equal(here.pixels, there.pixels)
        with pytest.raises(ImageDecodeError, match=r"^a: too large: 2000 x 1000 is 2.0 megapixels"):
            await network.read_in(pool, encoded("PNG", (2000, 1000)), name="a", user_id="ann")
    finally:
        await pool.aclose()


async def test_a_task_whose_picture_decodes_for_minutes_ends_in_error_with_a_refund(system: InferenceSystem):
    system.network = ReadingNetwork()
    engine = system.engine(decoding=DecodingPool(READ, DecodingOptions(processes=1, deadline_s=1, wait_s=None)))
    engine.start()
    try:
        await engine.loaded()
        before = await system.credits()
        task = await system.submit(content=slow_jpeg())
        assert await system.credits() == before - 1
        ended = await engine.worker.predict(task.task_id)
        assert (ended.status, ended.error_code) == ("error", "INVALID_REQUEST")
        assert "takes too long to decode" in (ended.error_message or "")
        assert await system.credits() == before
    finally:
        await engine.aclose()


async def test_a_picture_that_nobody_waits_for_any_more_is_given_up(system: InferenceSystem):
    pool = DecodingPool(READ, DecodingOptions(processes=1, deadline_s=600, give_up_s=600, wait_s=None))
    reader = PictureReader(ReadingNetwork(), cpu=ThreadPoolExecutor(1), decoding=pool)
    try:
        file = await reader.identify(slow_jpeg(scans=20_000), name="slow", user_id="ann")
        first, second = (asyncio.ensure_future(reader.read(file)) for _ in range(2))
        async with asyncio.timeout(60):
            while not pool.busy:
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.sleep(0.1)
            assert pool.busy, "the second still waits"
            second.cancel()
            while pool.busy:
                await asyncio.sleep(0.01)
            other = await reader.identify(encoded("PNG", (8, 6)), name="a", user_id="ann")
            await reader.read(other)
    finally:
        await pool.aclose()


async def test_a_task_with_a_slow_picture_does_not_delay_the_task_of_another_user(system: InferenceSystem):
    network = ReadingNetwork()
    pool = DecodingPool(READ, DecodingOptions(processes=2, deadline_s=600, give_up_s=600, wait_s=None))
    batcher = system.batcher_of(network, pool)
    slow = [
        asyncio.ensure_future(batcher.segment(slow_jpeg(scans=scans), ["left"], name="slow", user_id="ann"))
        for scans in (20_000, 20_001)
    ]
    try:
        async with asyncio.timeout(60):
            while not pool.busy:
                await asyncio.sleep(0.01)
        for size in ((8, 6), (6, 8)):
            (result,) = await batcher.segment(encoded("PNG", size), ["left"], name="a", user_id="bob")
            assert len(result) == 2
        assert not any(one.done() for one in slow)
    finally:
        await pool.aclose()
        await asyncio.gather(*slow, return_exceptions=True)
        await batcher.aclose()
