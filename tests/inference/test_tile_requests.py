"""Tiles in the services: the same result as the library's, in batches that leave room for what others ask."""

from __future__ import annotations

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import s3seg
from s3seg.decoding import DecodingPool
from s3seg.errors import InferenceError, InvalidRequestError
from s3seg.inference import tile_requests
from s3seg.inference.batcher import Batcher, ShownConcept
from s3seg.inference.prompts import BoxedPrompt
from s3seg.inference.worker import WorkerLimits
from s3seg.results import instances_file, masks
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.model import TaskRequest, TaskStatus
from tests.helpers.inference_system import USER, ScriptedNetwork, png
from tests.helpers.small_things import circles

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture(scope="module")
def seg() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded", device="cpu")


@pytest.mark.parametrize("in_processes", [False, True])
async def test_the_result_is_that_of_the_library(seg, in_processes):
    content = circles()
    expected = seg.segment(content, ["red circle", "blue star"], tile=300)
    decoding = DecodingPool("s3seg.inference.decoding:read_resized") if in_processes else None
    with ThreadPoolExecutor(2) as cpu:
        batcher = Batcher(seg.network, cpu=cpu, decoding=decoding)
        results = await batcher.segment(content, ["red circle", "blue star"], tile=300, name="the image", user_id="u")
        if decoding is not None:
            await decoding.aclose()
    assert len(expected[0]) >= 9
    for result, of_library in zip(results, expected, strict=True):
        result = result[result.scores > seg.metadata.threshold]
        assert len(result) == len(of_library)
        assert result.presence == pytest.approx(of_library.presence, abs=1e-4)
        np.testing.assert_allclose(result.scores, of_library.scores, atol=1e-4)
        assert (np.diag(masks.iou(result.rles, of_library.rles)) > 0.99).all()
        assert result.timings["image"] > 0


async def test_others_wait_for_one_batch_of_tiles_at_most(system):
    batcher = system.batcher(pictures=4)
    big = png(1, size=(640, 640))
    tiled = asyncio.ensure_future(batcher.segment(big, ["tiled"], tile=64, name="p"))
    await until(lambda: len(system.network.asked) > 2)
    for color in (5, 6, 7):
        system.network.go.clear()
        system.network.began.clear()
        await until(system.network.began.is_set)  # a batch of tiles is being encoded
        before = len(system.network.asked)
        small = asyncio.ensure_future(batcher.segment(png(color), ["small"], name="p"))
        await until(lambda: batcher.waiting >= 1)
        system.network.go.set()
        await small
        position = next(k for k, prompts in enumerate(system.network.asked) if k >= before and "small" in prompts)
        assert position - before <= 2  # the batch in progress, and one that was already waiting
    assert not tiled.done()
    (result,) = await tiled
    assert sum(len(prompts) for prompts in system.network.asked) == 169 + 1 + 3
    assert max(system.network.encoded) <= 4 + 1
    assert len(result) > 4
    await batcher.aclose()


async def test_tiles_of_many_prompts_are_put_one_at_a_time(system):
    batcher = system.batcher(pictures=8, prompts=6)
    await batcher.segment(png(1, size=(128, 64)), [f"p{n}" for n in range(4)], tile=64, name="p")
    assert system.network.encoded == [1, 1, 1, 1]  # the whole picture, and three tiles
    await batcher.aclose()


async def test_encodings_of_tiles_do_not_push_pictures_out_of_the_cache(system):
    batcher = system.batcher(cache_bytes=250)  # an embedding takes 100
    await batcher.segment(png(3), ["a"], name="p")
    await batcher.segment(png(1, size=(256, 256)), ["a"], tile=64, name="p")
    assert batcher.cache_bytes == 200
    await batcher.segment(png(3), ["b"], name="p")
    assert sum(system.network.encoded) == 1 + 1 + 25
    await batcher.aclose()


async def test_no_more_than_two_groups_of_tiles_are_in_memory(system, monkeypatch):
    monkeypatch.setattr(tile_requests, "_GROUP_BYTES", 10 * 3 * system.network.input_side**2)
    batcher = system.batcher()
    system.network.go.clear()
    tiled = asyncio.ensure_future(batcher.segment(png(1, size=(640, 640)), ["a"], tile=64, name="p"))
    await until(lambda: batcher.network.began.is_set())
    system.network.go.set()
    await until(lambda: len(system.network.encoded) > 1)
    system.network.go.clear()
    await until(lambda: len(system.network.tile_reads) >= 2)
    assert system.network.tile_reads[:2] == [10, 10]
    assert sum(system.network.tile_reads) <= sum(system.network.encoded) + 2 * 10
    system.network.go.set()
    await tiled
    assert sum(system.network.tile_reads) == 169
    await batcher.aclose()


async def test_too_many_tiles_are_refused_before_anything_is_encoded(system):
    batcher = system.batcher(tiles=100)
    with pytest.raises(InvalidRequestError, match=r"would be 169, more than 100; .* such as tile=90"):
        await batcher.segment(png(1, size=(640, 640)), ["a"], tile=64, name="p")
    await batcher.segment(png(1, size=(640, 640)), ["a"], tile=90, name="p")
    await batcher.aclose()
    none = system.batcher(tiles=0)
    with pytest.raises(InvalidRequestError, match="does not look into tiles"):
        await none.segment(png(1), ["a"], tile="auto", name="p")
    await none.aclose()


async def test_tiles_are_for_words_only(system):
    batcher = system.batcher()
    for other in ({"objects": [Clicks([(1, 1)])]}, {"concept": ShownConcept(None, [])}):
        with pytest.raises(InvalidRequestError, match="only words"):
            await batcher.segment(png(1), ["a"], tile=64, name="p", **other)
    with pytest.raises(InvalidRequestError, match="only words"):
        await batcher.segment(png(1), [BoxedPrompt("a", ((0, 0, 2, 2),))], tile=64, name="p")
    await batcher.aclose()


async def test_tiles_of_a_turned_photograph_are_those_of_what_is_seen(seg):
    turned = Image.open(io.BytesIO(circles())).crop((0, 0, 700, 480)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    buffer = io.BytesIO()
    turned.save(buffer, format="JPEG", quality=95, exif=exif)
    expected = seg.segment(buffer.getvalue(), "red circle", tile=300)
    with ThreadPoolExecutor(2) as cpu:
        batcher = Batcher(seg.network, cpu=cpu)
        (result,) = await batcher.segment(buffer.getvalue(), ["red circle"], tile=300, name="the image")
    result = result[result.scores > seg.metadata.threshold]
    assert result.size == expected.size == (480, 700)
    assert len(result) == len(expected) >= 6
    assert (masks.iou(result.rles, expected.rles).max(axis=1) > 0.9).all()


async def test_tiles_that_nobody_waits_for_are_dropped(system):
    batcher = system.batcher(pictures=2)
    tiled = asyncio.ensure_future(batcher.segment(png(1, size=(640, 640)), ["a"], tile=64, name="p"))
    await until(lambda: len(system.network.asked) > 3)
    tiled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tiled
    (result,) = await batcher.segment(png(9), ["left"], name="p")
    assert len(result) == 2
    assert len(system.network.asked) < 20
    await batcher.aclose()


async def test_a_failure_in_a_tile_is_that_of_the_request_alone(system):
    batcher = system.batcher(pictures=2)
    system.network.fail = [None, None, *[InferenceError("broken")] * 4]
    with pytest.raises(InferenceError, match="broken"):
        await batcher.segment(png(1, size=(640, 640)), ["a"], tile=64, name="p")
    system.network.fail = []
    assert len(await batcher.segment(png(9), ["left"], name="p")) == 1
    await batcher.aclose()


async def test_more_instances_than_are_kept_are_left_out_with_a_hint(system, monkeypatch):
    batcher = system.batcher()
    (every,) = await batcher.segment(png(1, size=(640, 640)), ["a"], tile=64, name="p")
    monkeypatch.setattr(tile_requests, "MAX_INSTANCES", 5)
    (best,) = await batcher.segment(png(1, size=(640, 640)), ["a"], tile=64, name="p")
    assert len(every) > 5
    assert len(best) <= 5
    assert not every.hints
    assert "best instances" in best.hints[0].text
    await batcher.aclose()


# ---- tasks ----


async def started(system, **options):
    engine = system.engine(**options)
    engine.start()
    await engine.loaded()
    return engine


class SpottedNetwork(ScriptedNetwork):
    """Finds a spot in the middle of each tile, and nothing in whole pictures."""

    def predict(self, pairs):
        spot = torch.full((1, 8, 8), -1.0)
        spot[:, 3:5, 3:5] = 1.0
        return [
            self.detections(spot, scores=[0.75]) if image.size == (64, 64) else self.detections(spot[:0], scores=[])
            for image, _ in pairs
        ]


async def test_a_task_with_tiles_may_have_more_than_200_instances(system):
    engine = await started(system, load=SpottedNetwork)
    task = await system.submit_tiles("spot", tile=64, content=png(1, size=(750, 750)))
    await until(lambda: system.tables.tasks[task.task_id].ended)
    done = system.tables.tasks[task.task_id]
    assert (done.status, done.error_message) == (TaskStatus.DONE, None)
    content = await system.objects.get(system.objects.key_of(done.metadata["instances_url"]))
    (result,) = instances_file.read(content)
    assert len(result) == 256
    assert (done.metadata["instance_count"], done.metadata["tile"]) == (256, 64)
    label_map = Image.open(io.BytesIO(await system.objects.get(system.objects.key_of(done.mask_image_url))))
    assert set(np.unique(np.array(label_map))) == set(range(257))
    await engine.aclose()


class StuckNetwork(ScriptedNetwork):
    """Reads no tiles before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def read_tiles(self, *args, **kwargs):
        assert self.goes_on.wait(20)
        return super().read_tiles(*args, **kwargs)


async def test_tasks_with_tiles_leave_room_for_those_of_others(system):
    network = StuckNetwork()
    tiled = [await system.submit_tiles("tiled", tile=64, content=png(n, size=(96, 96))) for n in range(8)]
    worker = WorkerLimits(claimed=2, with_tiles=2, poll_s=0.01)
    engine = await started(system, load=lambda: network, worker=worker, cpu_threads=6)
    small = [await system.submit("small", content=png(100 + n)) for n in range(6)]
    await until(lambda: all(system.tables.tasks[task.task_id].ended for task in small))
    states = [system.tables.tasks[task.task_id].status for task in tiled]
    assert sorted(states) == [TaskStatus.PENDING] * 6 + [TaskStatus.PROCESSING] * 2
    network.goes_on.set()
    await until(lambda: all(task.ended for task in system.tables.tasks.values()))
    assert {task.status for task in system.tables.tasks.values()} == {TaskStatus.DONE}
    await engine.aclose()


async def test_requests_for_tasks_with_tiles_wait_for_their_turn(system):
    engine = await started(system, worker=WorkerLimits(claimed=1, with_tiles=1, poll_s=3600))
    tasks = [await system.submit_tiles("tiled", tile=64, content=png(n, size=(256, 256))) for n in range(3)]
    small = await system.submit("small")
    done = await asyncio.gather(*(engine.worker.predict(task.task_id) for task in [*tasks, small]))
    assert {task.status for task in done} == {TaskStatus.DONE}
    await engine.aclose()


@pytest.mark.parametrize(
    "visual", [{"tile": 3}, {"tile": "all"}, {"tile": None}, {"tile": 2**40}, {"tile": 64, "clicks": []}]
)
async def test_malformed_tiles_end_their_task_with_a_refund(system, visual):
    engine = await started(system)
    before = await system.credits()
    url = await system.upload(png())
    request = TaskRequest(image_url=url, prompts=("left",), visual=visual)
    task = (await system.store.submit(USER, request)).task
    await until(lambda: system.tables.tasks[task.task_id].ended)
    ended = system.tables.tasks[task.task_id]
    assert (ended.status, ended.error_code) == (TaskStatus.ERROR, "INVALID_REQUEST")
    assert "tile" in (ended.error_message or "")
    assert await system.credits() == before
    await engine.aclose()
