"""Requests that wait together share forward passes, and share nothing else."""

from __future__ import annotations

import asyncio
import io
import threading
from dataclasses import replace

import pytest
from PIL import Image

from s3seg.errors import ImageDecodeError, InferenceError, OutOfMemoryError, PromptError
from s3seg.inference.batcher import Batcher
from s3seg.inference.segmenter import Segmenter
from s3seg.results import export, masks
from tests.helpers.inference_system import PICTURES, STREET, ScriptedNetwork, png
from tests.helpers.pictures import photograph

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def pile_up(system, batcher, requests, *, jobs):
    """Start requests while the network is held up by another; they wait together. Gives their tasks."""
    system.network.go.clear()
    first = asyncio.ensure_future(batcher.segment(png(255), ["first"], name="p"))
    await until(system.network.began.is_set)
    tasks = [asyncio.ensure_future(batcher.segment(content, prompts, name="p")) for content, prompts in requests]
    await until(lambda: batcher.waiting == jobs)
    return first, tasks


async def test_an_idle_network_answers_at_once_and_alone(system):
    batcher = system.batcher()
    (result,) = await batcher.segment(png(), ["left"], name="p")
    assert result.prompt == "left"
    assert len(result) == 2
    assert system.metrics.batches == [(1, 1)]
    await batcher.aclose()


async def test_what_waits_together_is_encoded_and_decoded_together(system):
    batcher = system.batcher()
    first, tasks = await pile_up(system, batcher, [(png(n), [f"p{n}"]) for n in range(5)], jobs=5)
    system.network.go.set()
    results = await asyncio.gather(*tasks)
    await first
    assert [result.prompt for (result,) in results] == [f"p{n}" for n in range(5)]
    assert system.network.encoded == [1, 5]
    assert [sorted(prompts) for prompts in system.network.asked] == [["first"], ["p0", "p1", "p2", "p3", "p4"]]
    await batcher.aclose()


async def test_one_picture_is_read_and_encoded_once_for_all_who_ask(system):
    batcher = system.batcher()
    content = png(7)
    first, tasks = await pile_up(system, batcher, [(content, ["a"]), (content, ["b", "c"]), (content, ["a"])], jobs=3)
    system.network.go.set()
    await asyncio.gather(first, *tasks)
    await batcher.segment(content, ["d"], name="p")
    assert system.network.encoded == [1, 1]
    assert [sorted(prompts) for prompts in system.network.asked[1:]] == [["a", "b", "c"], ["d"]]  # "a" once for two
    assert system.network.reads <= 4  # reads at the same time are shared; the last needed none
    assert system.metrics.hits == {False: 2, True: 3}
    await batcher.aclose()


async def test_a_batch_has_at_most_as_many_pictures_and_prompts_as_allowed(system):
    batcher = system.batcher(pictures=2, prompts=3)
    first, tasks = await pile_up(system, batcher, [(png(n), ["a"]) for n in range(5)], jobs=5)
    system.network.go.set()
    await asyncio.gather(first, *tasks)
    assert system.network.encoded == [1, 2, 2, 1]
    await batcher.segment(png(99), ["a", "b", "c", "d", "a"], name="p")  # one request is never cut
    assert system.network.asked[-1] == ["a", "b", "c", "d"]
    await batcher.aclose()


async def test_who_asks_the_same_gets_the_same_and_it_is_decoded_once(system):
    batcher = system.batcher(prompts=3)
    content = png(7)
    first, tasks = await pile_up(system, batcher, [(content, ["a", "b", "a"])] * 4 + [(png(8), ["a"])], jobs=5)
    system.network.go.set()
    *same, other = await asyncio.gather(*tasks)
    await first
    assert [[result.prompt for result in results] for results in same] == [["a", "b", "a"]] * 4
    for results in same:
        assert [one.rles for one in results] == [one.rles for one in same[0]]
        assert results[0].rles == results[2].rles
    assert other[0].prompt == "a"
    assert [sorted(prompts) for prompts in system.network.asked[1:]] == [["a", "a", "b"]]  # "a" for each picture
    await batcher.aclose()


async def test_the_cache_holds_no_more_bytes_than_allowed(system):
    batcher = system.batcher(cache_bytes=250)  # an embedding takes 100
    for color in (1, 2, 3, 1):
        await batcher.segment(png(color), ["a"], name="p")
        assert batcher.cache_bytes <= 250
    assert system.network.encoded == [1, 1, 1, 1]  # 1 had to go for 3
    await batcher.segment(png(3), ["a"], name="p")
    assert len(system.network.encoded) == 4
    await batcher.aclose()


async def test_out_of_memory_splits_the_batch_and_tries_once_more(system):
    batcher = system.batcher()
    first, tasks = await pile_up(system, batcher, [(png(n), ["a"]) for n in range(4)], jobs=4)
    system.network.fail = [None, OutOfMemoryError("out of memory")]
    system.network.go.set()
    assert len(await asyncio.gather(first, *tasks)) == 5
    assert system.network.encoded == [1, 2, 2]
    assert system.network.freed == 1
    assert system.metrics.splits == 1
    await batcher.aclose()


async def test_a_half_that_fails_again_fails_alone(system):
    batcher = system.batcher()
    first, tasks = await pile_up(system, batcher, [(png(n), ["a"]) for n in range(4)], jobs=4)
    system.network.fail = [None, OutOfMemoryError("first"), OutOfMemoryError("second")]
    system.network.go.set()
    ends = await asyncio.gather(first, *tasks, return_exceptions=True)
    failed = [isinstance(end, OutOfMemoryError) for end in ends]
    assert not failed[0]
    assert sum(failed) == 2  # whichever two were read first
    await batcher.aclose()


async def test_a_single_request_is_tried_again_only_if_memory_was_the_trouble(system):
    batcher = system.batcher()
    system.network.fail = [OutOfMemoryError("out of memory")]
    await batcher.segment(png(), ["a"], name="p")
    system.network.fail = [InferenceError("the network failed")]
    with pytest.raises(InferenceError, match="the network failed"):
        await batcher.segment(png(2), ["a"], name="p")
    system.network.fail = [ZeroDivisionError("a bug")]
    with pytest.raises(ZeroDivisionError):
        await batcher.segment(png(3), ["a"], name="p")
    await batcher.segment(png(4), ["a"], name="p")  # and the thread lives on
    await batcher.aclose()


async def test_a_network_that_cannot_free_memory_fails_its_batch_and_goes_on(system, monkeypatch):
    batcher = system.batcher()

    def fail() -> None:
        raise InferenceError("the network's process has ended")

    monkeypatch.setattr(system.network, "free", fail)
    system.network.fail = [OutOfMemoryError("out of memory")]
    async with asyncio.timeout(20):
        with pytest.raises(InferenceError, match="process has ended"):
            await batcher.segment(png(), ["a"], name="p")
        await batcher.segment(png(2), ["a"], name="p")
    await batcher.aclose()


async def test_who_leaves_before_his_turn_costs_nothing(system):
    batcher = system.batcher()
    first, (leaving, staying) = await pile_up(system, batcher, [(png(1), ["gone"]), (png(2), ["here"])], jobs=2)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    system.network.go.set()
    await asyncio.gather(first, staying)
    assert system.network.asked == [["first"], ["here"]]
    assert system.network.encoded == [1, 1]
    await batcher.aclose()


async def test_who_leaves_while_a_picture_is_read_stops_nobody_else(system):
    batcher = system.batcher()
    reading, go = threading.Event(), threading.Event()
    read = system.network.read

    def slow(content, *, name):
        reading.set()
        assert go.wait(20)
        return read(content, name=name)

    system.network.read = slow
    content = png(5)
    leaving = asyncio.ensure_future(batcher.segment(content, ["a"], name="p"))
    await until(reading.is_set)
    staying = asyncio.ensure_future(batcher.segment(content, ["b"], name="p"))
    await asyncio.sleep(0.05)
    leaving.cancel()
    go.set()
    (result,) = await staying
    assert result.prompt == "b"
    assert system.network.reads == 1
    await batcher.aclose()


async def test_a_bad_picture_or_prompt_fails_alone_and_before_the_network(system):
    batcher = system.batcher()
    with pytest.raises(ImageDecodeError, match="not an image"):
        await batcher.segment(b"nothing", ["a"], name="the image")
    with pytest.raises(PromptError, match="99 tokens"):
        await batcher.segment(png(), ["x" * 50], name="p")
    assert system.network.encoded == []
    await batcher.aclose()


async def test_the_network_has_a_thread_of_its_own(system):
    batcher = system.batcher()
    await asyncio.gather(*(batcher.segment(png(n), ["a"], name="p") for n in range(6)))
    assert system.network.threads == {"s3seg-network"}
    await batcher.aclose()
    assert not any(thread.is_alive() for queue in batcher._queues for thread in queue._threads)


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("embedded", device="cpu")


async def test_real_results_in_company_are_what_each_is_alone(system, segmenter):
    system.network = segmenter.network
    batcher = system.batcher()
    shapes = (PICTURES / "shapes.png").read_bytes()
    cat = photograph("chelsea.png").read_bytes()
    requests = [(cat, ["cat"]), (STREET, ["car"]), (shapes, ["star", "circle"]), (STREET, ["tree", "xylophone"])]
    together = await asyncio.gather(*(batcher.segment(content, prompts, name="p") for content, prompts in requests))
    for (content, prompts), results in zip(requests, together, strict=True):
        for prompt, result in zip(prompts, results, strict=True):
            alone = segmenter.segment(content, prompt, threshold=0.1)
            assert len(alone) == len(result)
            assert result.prompt == prompt
            assert abs(alone.scores - result.scores).max(initial=0) < 1e-3
            overlap = masks.iou(list(alone.rles), list(result.rles))
            assert all(overlap.diagonal() > 0.99)
            assert result.hints == alone.hints
            assert ("looks like a photograph" in (result.hint or "")) == (content is cat)
    await batcher.aclose()


async def test_a_large_jpeg_that_is_read_reduced_gives_masks_of_its_true_size(system, segmenter):
    large = Image.open(io.BytesIO(STREET)).convert("RGB").resize((2400, 1920), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.save(buffer, format="JPEG", quality=95)
    system.network = segmenter.network
    assert system.network.read(buffer.getvalue(), name="p").pixels.shape == (1, 3, 320, 320)
    batcher = system.batcher()
    (reduced,) = await batcher.segment(buffer.getvalue(), ["car"], name="p")
    full = segmenter.segment(buffer.getvalue(), "car", threshold=0.1)
    best = int((full.scores > segmenter.metadata.threshold).sum())
    assert reduced.size == full.size == (1920, 2400)
    assert best >= 2
    assert abs(reduced.scores[:best] - full.scores[:best]).max() < 0.05
    assert min(masks.iou(list(full.rles[:best]), list(reduced.rles)).max(axis=1)) > 0.95
    await batcher.aclose()


async def test_a_batcher_in_a_forked_child_is_refused_with_the_remedy(system, monkeypatch):
    batcher = system.batcher()
    with monkeypatch.context() as forked:
        forked.setattr("os.getpid", lambda: -1)
        with pytest.raises(InferenceError, match="forked from it"):
            await batcher.segment(png(), ["left"], name="p")
    assert await batcher.segment(png(), ["left"], name="p")
    await batcher.aclose()


async def test_results_of_one_file_are_of_one_picture_in_exports(system):
    batcher = system.batcher()
    results = await batcher.segment(png(), ["left", "all"], name="p")
    results += await batcher.segment(png(9), ["left"], name="q")
    assert [image["id"] for image in export.coco(results)["images"]] == [1, 2]
    assert results[0].image_id == results[1].image_id
    await batcher.aclose()


class TestSeveralNetworks:
    """One on each device."""

    @staticmethod
    def make(system, count=2, **options):
        networks = [ScriptedNetwork() for _ in range(count)]
        return networks, Batcher(networks, cpu=system.cpu, metrics=system.metrics, **options)

    async def test_requests_go_to_the_network_with_the_least_to_do(self, system):
        networks, batcher = self.make(system)
        for network in networks:
            network.go.clear()
        tasks = [asyncio.ensure_future(batcher.segment(png(n), ["a"], name="p")) for n in range(6)]
        await until(lambda: all(network.began.is_set() for network in networks))
        await until(lambda: [queue.load for queue in batcher._queues] == [3, 3])
        for network in networks:
            network.go.set()
        await asyncio.gather(*tasks)
        await until(lambda: [queue.load for queue in batcher._queues] == [0, 0])
        await batcher.aclose()

    async def test_a_picture_goes_to_the_network_that_knows_it(self, system):
        networks, batcher = self.make(system)
        networks[0].go.clear()
        held = asyncio.ensure_future(batcher.segment(png(1), ["a"], name="p"))
        await until(networks[0].began.is_set)
        await batcher.segment(png(2), ["a"], name="p")
        networks[0].go.set()
        await held
        await batcher.segment(png(2), ["b"], name="p")
        assert [network.encoded for network in networks] == [[1], [1]]
        assert networks[1].asked == [["a"], ["b"]]
        await batcher.aclose()

    async def test_a_network_with_a_problem_gets_nothing_as_long_as_another_can_compute(self, system):
        networks, batcher = self.make(system)
        await batcher.segment(png(1), ["a"], name="p")
        networks[0].problem = "its process is being restarted"
        await batcher.segment(png(1), ["b"], name="p")
        assert [network.asked for network in networks] == [[["a"]], [["b"]]]
        await batcher.aclose()

    async def test_all_accelerators_are_warmed(self, system):
        networks, batcher = self.make(system, 3)
        for number, network in enumerate(networks):
            network.model = replace(network.model, device=f"cuda:{number}")
        await batcher.warm(png())
        assert [network.encoded for network in networks] == [[1], [1], [1]]
        await batcher.aclose()

    async def test_on_a_cpu_the_first_picture_is_only_read(self, system):
        networks, batcher = self.make(system, 2)
        await batcher.warm(png())
        assert [network.encoded for network in networks] == [[], []]
        assert sum(network.reads for network in networks) == 1
        await batcher.aclose()


class TestTwoBatchesAtOnce:
    """A network in a process of its own computes one while it reads the next."""

    async def test_the_second_batch_begins_while_the_first_is_in_progress(self, system):
        network = system.network
        network.go.clear()
        batcher = Batcher(network, cpu=system.cpu, metrics=system.metrics, threads=2)
        tasks = []
        for number in range(2):
            tasks.append(asyncio.ensure_future(batcher.segment(png(number), ["a"], name="p")))
            await until(lambda: len(network.inside) == number + 1)  # noqa: B023 (awaited here)
        network.go.set()
        await asyncio.gather(*tasks)
        await batcher.aclose()

    async def test_a_picture_that_is_being_encoded_is_not_encoded_again(self, system):
        network = system.network
        network.go.clear()
        batcher = Batcher(network, cpu=system.cpu, metrics=system.metrics, threads=2)
        first = asyncio.ensure_future(batcher.segment(png(1), ["a"], name="p"))
        await until(network.began.is_set)
        second = asyncio.ensure_future(batcher.segment(png(1), ["b"], name="p"))
        await until(lambda: system.metrics.hits[True] == 1)  # it has seen that the first one encodes
        network.go.set()
        await asyncio.gather(first, second)
        assert network.encoded == [1]
        assert sorted(network.asked) == [["a"], ["b"]]
        await batcher.aclose()

    async def test_who_waits_for_the_encoding_of_another_batch_gets_its_error(self, system):
        network = system.network
        network.go.clear()
        network.fail = [InferenceError("no")]
        batcher = Batcher(network, cpu=system.cpu, metrics=system.metrics, threads=2)
        first = asyncio.ensure_future(batcher.segment(png(1), ["a"], name="p"))
        await until(network.began.is_set)
        second = asyncio.ensure_future(batcher.segment(png(1), ["b"], name="p"))
        await until(lambda: system.metrics.hits[True] == 1)  # it has seen that the first one encodes
        network.go.set()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [InferenceError] * 2
        await until(lambda: [queue.load for queue in batcher._queues] == [0])  # a moment after its outcome
        assert (await batcher.segment(png(1), ["c"], name="p"))[0].prompt == "c"
        await batcher.aclose()
