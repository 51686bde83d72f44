"""Uploads are inspected in processes: slow and large pictures cost their sender, and nobody else."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from s3seg.decoding import DecodingOptions, DecodingPool
from s3seg.edge import EdgeOptions, Upload
from s3seg.edge.uploads import inspect, inspect_in
from s3seg.errors import FileTooLargeError, ImageDecodeError, UnavailableError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from tests.edge.system import System
from tests.helpers.attacks import NOT_PICTURES, bomb, deep_png, large_webp, slow_jpeg
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio


def new_pool(**options) -> DecodingPool:
    return DecodingPool("s3seg.edge.inspection:inspect_upload", DecodingOptions(**options))


@pytest.fixture
async def pool():
    pool = new_pool(processes=1, wait_s=60)
    yield pool
    await pool.aclose()


async def inspected(pool: DecodingPool, data: bytes, max_pixels: int = 50_000_000):
    return await inspect_in(pool, data, user_id="ann", max_pixels=max_pixels)


async def test_a_process_sees_what_a_thread_sees(pool):
    for image_format in ("PNG", "JPEG", "WEBP"):
        data = encoded(image_format, (8, 6))
        assert await inspected(pool, data) == inspect(data, max_pixels=100)
    for data in (bomb(8000, 8000), b"\xff\xd8\xff" + bytes(100), encoded()[:-20]):
        with pytest.raises(ImageDecodeError) as in_process:
            await inspected(pool, data)
        with pytest.raises(ImageDecodeError) as in_thread:
            inspect(data, max_pixels=50_000_000)
        assert str(in_process.value) == str(in_thread.value)


async def test_what_is_no_picture_by_its_first_bytes_starts_no_process(pool):
    for name in ("empty", "zeros", "svg", "html"):
        with pytest.raises(ImageDecodeError):
            await inspected(pool, NOT_PICTURES[name])
    with pytest.raises(FileTooLargeError):
        await inspected(pool, bytes(MAX_UPLOAD_BYTES + 1))
    assert pool.pids == []


async def test_pictures_that_take_most_memory_fit_into_what_the_estimate_allows():
    pool = new_pool(processes=1, memory=3000 * 3000 * 18)
    for data in (deep_png(3000), large_webp(3000)):
        assert (await inspected(pool, data)).width == 3000
    await pool.aclose()


async def test_a_picture_beyond_the_budget_is_refused_by_its_header():
    pool = new_pool(processes=1, memory=500_000_000)
    with pytest.raises(ImageDecodeError, match=r"too large: decoding this WEBP picture would take about 0\.9 GB"):
        await inspected(pool, large_webp())
    await pool.aclose()


async def test_a_picture_that_decodes_for_minutes_is_refused_at_the_deadline():
    pool = new_pool(processes=1, deadline_s=1)
    data = slow_jpeg()
    assert len(data) < 2 * 2**20
    with pytest.raises(ImageDecodeError, match="file: takes too long to decode"):
        await inspected(pool, data)
    await pool.aclose()


@pytest.fixture
async def attacked():
    """An edge with two users whose pictures are being decoded, and will be for minutes."""
    pool = new_pool(processes=4, deadline_s=600, give_up_s=600, wait_s=60)
    system = System(inspect=partial(inspect_in, pool), options=EdgeOptions(max_uploads=16, max_uploads_per_user=3))
    slow = Upload(data=slow_jpeg())
    attackers = [await system.user(), await system.user()]
    attacks = [asyncio.ensure_future(system.edge.upload(user, slow)) for user in attackers for _ in range(2)]
    async with asyncio.timeout(60):
        while pool.busy < 2:
            await asyncio.sleep(0.01)
    yield system, attackers, attacks
    for attack in attacks:
        attack.cancel()
    await asyncio.gather(*attacks, return_exceptions=True)
    await pool.aclose()


async def test_two_users_with_slow_pictures_do_not_keep_a_third_from_uploading(attacked):
    system, _, attacks = attacked
    third = await system.user()
    for _ in range(3):
        assert (await system.edge.upload(third, Upload(data=encoded("JPEG", (800, 600))))).image_url
    assert not any(attack.done() for attack in attacks)


async def test_users_with_slow_pictures_have_one_process_each(attacked):
    system, attackers, attacks = attacked
    late = asyncio.ensure_future(system.edge.upload(attackers[0], Upload(data=encoded())))
    third = await system.user()
    await system.edge.upload(third, Upload(data=encoded()))
    assert not late.done()
    assert not any(attack.done() for attack in attacks)
    late.cancel()


async def test_without_a_free_process_an_upload_is_unavailable():
    pool = new_pool(processes=1, deadline_s=600, give_up_s=600, wait_s=0.01)
    system = System(inspect=partial(inspect_in, pool))
    attack = asyncio.ensure_future(system.edge.upload(await system.user(), Upload(data=slow_jpeg())))
    async with asyncio.timeout(60):
        while not pool.busy:
            await asyncio.sleep(0.01)
    with pytest.raises(UnavailableError, match="try again"):
        await system.edge.upload(await system.user(), Upload(data=encoded()))
    attack.cancel()
    await asyncio.gather(attack, return_exceptions=True)
    await pool.aclose()
