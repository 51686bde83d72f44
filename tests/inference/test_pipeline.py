"""One prediction: what is stored and told when it works, and how it ends when any stage of it fails."""

from __future__ import annotations

import asyncio
import io
import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

from s3seg.errors import InferenceError, InvalidRequestError, LeaseLostError, UnavailableError
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.concepts import ConceptDefinition, ConceptExample
from s3seg.tasks.model import TaskRequest, TaskStatus
from s3seg.tasks.records import Concept
from s3seg.tasks.state_machine import Rules
from s3seg.tasks.visual import visual_of_concept
from tests.helpers.inference_system import USER, InferenceSystem, png

pytestmark = pytest.mark.anyio


async def run(system, task, **options):
    """One attempt of a worker on a task."""
    batcher = system.batcher()
    claim = await system.queue.claim("worker", task.task_id, lease_s=30)
    try:
        return await system.pipeline(batcher, **options).run(claim)
    finally:
        await batcher.aclose()


async def stored(system, url):
    return await system.objects.get(system.objects.key_of(url))


class Failing:
    """An adapter one of whose methods raises, as often as told; every other call goes through."""

    def __init__(self, adapter, method, *errors, after=False):
        self._adapter, self._method, self._errors, self._after = adapter, method, list(errors), after

    def __getattr__(self, name):
        real = getattr(self._adapter, name)
        if name != self._method:
            return real

        async def failing(*args, **kwargs):
            if self._errors:
                error = self._errors.pop(0)
                if self._after:
                    await real(*args, **kwargs)
                raise error
            return await real(*args, **kwargs)

        return failing


async def test_a_prediction_stores_its_mask_and_instances_and_tells_the_row(system):
    task = await run(system, await system.submit("left", content=png(size=(8, 6))))
    assert task.status == TaskStatus.DONE
    assert task.labels == ("left",)
    labels = np.asarray(Image.open(io.BytesIO(await stored(system, task.mask_image_url))))
    assert labels.shape == (6, 8)
    assert labels.dtype == np.uint8
    assert (labels[:, :4] == 1).all()
    assert (labels[:, 4:] == 0).all()  # the second instance is below the threshold
    metadata = task.metadata
    assert metadata["confidence"] == 0.75
    assert metadata["model_version"] == "1"
    assert metadata["inference_time_ms"] > 0
    instances = json.loads(await stored(system, metadata["instances_url"]))
    assert instances["format"] == "s3seg.instances/1"
    assert instances["threshold"] == 0.5
    (result,) = (Segmentation.from_dict(one) for one in instances["results"])
    assert result.scores.tolist() == [0.75, 0.25]
    assert set(task.object_keys) == await system.result_keys()
    assert system.metrics.ends == {"DONE": 1}
    json.dumps(task.metadata)


async def test_several_prompts_have_a_mask_each_and_one_together(system):
    task = await run(system, await system.submit("a", "nothing", "b"))
    assert task.labels == ("a", "b")
    one, two, three = task.metadata["prompts"]
    assert [one["labels"], two["labels"], three["labels"]] == [["a"], [], ["b"]]
    assert [one["confidence"], two["confidence"]] == [0.75, 0.0]
    assert not np.asarray(Image.open(io.BytesIO(await stored(system, two["mask_url"])))).any()
    together = np.asarray(Image.open(io.BytesIO(await stored(system, task.mask_image_url))))
    assert set(np.unique(together)) == {0, 1}  # both cover the same pixels: the first of equals wins
    assert len(task.object_keys) == 5
    assert set(task.object_keys) == await system.result_keys()
    assert task.metadata["inference_time_ms"] == pytest.approx(
        sum(one["inference_time_ms"] for one in task.metadata["prompts"]), abs=0.01
    )


async def test_clicked_objects_are_found_however_low_they_score_and_have_a_mask_each(system):
    task = await system.submit_clicks(Clicks([(7, 1)]), Clicks([(1, 1), (7, 5)], [1, 0]), content=png(size=(8, 6)))
    assert await system.credits() == 998
    task = await run(system, task)
    assert task.status == TaskStatus.DONE
    assert task.labels == ("point 7,1", "point 1,1; not 7,5")
    assert task.metadata["confidence"] == 0.25
    labels = np.asarray(Image.open(io.BytesIO(await stored(system, task.mask_image_url))))
    assert set(np.unique(labels[:, :4])) == {2}
    assert set(np.unique(labels[:, 4:])) == {1}
    alone = np.asarray(Image.open(io.BytesIO(await stored(system, task.metadata["prompts"][1]["mask_url"]))))
    assert (alone[:, :4] == 1).all()
    assert (alone[:, 4:] == 0).all()
    found = json.loads(await stored(system, task.metadata["instances_url"]))
    assert found["threshold"] == 0
    assert [len(Segmentation.from_dict(one)) for one in found["results"]] == [1, 1]


async def test_words_and_clicks_share_a_batch_and_an_encoding(system):
    system.network.go.clear()
    batcher = system.batcher()
    picture = png(size=(8, 6))
    asked = [asyncio.ensure_future(batcher.segment(png(1), ["wait"], name="x"))]
    await asyncio.to_thread(system.network.began.wait, 5)
    asked.append(asyncio.ensure_future(batcher.segment(picture, ["left"], name="x")))
    asked.append(asyncio.ensure_future(batcher.segment(picture, ["a"], objects=[Clicks([(1, 1)])], name="x")))
    while batcher.waiting < 2:
        await asyncio.sleep(0.01)
    system.network.go.set()
    _, (words,), (clicked,) = await asyncio.gather(*asked)
    assert system.network.encoded == [1, 1]
    assert words[0].score == 0.75
    assert (clicked[0].score, clicked.prompt) == (0.25, "a")
    assert clicked.rles[0] == words.rles[0]
    await batcher.aclose()


async def test_a_concept_is_encoded_with_its_examples_and_named_in_the_result(system):
    example = await system.upload(png(1, size=(8, 6)))
    examples = (
        ConceptExample(example, ((1, 1, 4, 4),), ((5, 1, 7, 4),)),
        ConceptExample(example, ((2, 2, 3, 3),)),
    )
    concept = Concept(
        concept_id="c",
        user_id=USER.user_id,
        name="my thing",
        definition=ConceptDefinition("thing", examples).to_dict(),
        created_at=datetime.now(UTC),
    )
    url = await system.upload(png(2, size=(8, 6)))
    request = TaskRequest(image_url=url, prompts=("my thing",), visual=visual_of_concept(concept))
    task = await run(system, (await system.store.submit(USER, request)).task)
    assert task.status == TaskStatus.DONE
    assert task.labels == ("my thing",)
    assert task.metadata["confidence"] == 0.5 + 3 / 16
    assert task.metadata["hint"] == "concepts are scripted"
    assert system.network.asked == [["thing", "2", "1"]]
    assert system.network.encoded == [2]  # the picture, and the one picture of both examples
    assert await system.credits() == 999


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "https://x/users/8d1f7f3e-2a55-4c58-9d8c-0c7a6f0f2b11/images/a.png"]
)
async def test_only_images_of_the_user_are_examples(system, url):
    picture = await system.upload(png())
    example = {"image_url": url, "boxes": [[1, 1, 4, 4]], "negative_boxes": []}
    visual = {"concept": {"words": None, "examples": [example]}}
    request = TaskRequest(image_url=picture, prompts=("x",), visual=visual)
    task = await run(system, (await system.store.submit(USER, request)).task)
    assert (task.status, task.error_code) == (TaskStatus.ERROR, "INVALID_REQUEST")
    assert "not one of your uploads" in task.error_message
    assert await system.credits() == 1000


@pytest.mark.parametrize(
    ("visual", "message"),
    [
        ({"concept": {}}, "malformed"),
        ({"concept": {"words": None, "examples": []}}, "1 to 4 images"),
        ({"concept": {"words": None, "examples": [{"image_url": "x", "boxes": 3, "negative_boxes": []}]}}, "malformed"),
        ({"concept": {"words": None, "examples": [{"image_url": "x", "boxes": [["a"]]}]}}, "malformed"),
        (
            {
                "concept": {
                    "words": None,
                    "examples": [{"image_url": "x", "boxes": [[0, 0, 10**400, 1]], "negative_boxes": []}],
                }
            },
            "malformed",
        ),
        ({"concept": None}, "malformed"),
        ({"clicks": [{"points": [[99, 1]], "labels": [1]}]}, "99,1 is not inside the picture of 8 x 6 pixels"),
        ({"clicks": [{"points": [], "labels": []}]}, "neither a point nor a box"),
        ({"clicks": [{"points": [[1, 1]] * 65, "labels": [1] * 65}]}, "at most 64 points"),
        ({"clicks": [{"points": [[1, 1]], "labels": [1]}] * 2}, "malformed"),
        ({"clicks": [{"points": [["x", {}]], "labels": [1]}]}, "two numbers"),
        ({"clicks": [3]}, "malformed"),
        ({"clicks": {"a": 3}}, "malformed"),
        ({"clicks": None}, "malformed"),
        ({"clicks": [{"labels": [1]}]}, "malformed"),
    ],
)
async def test_clicks_that_make_no_sense_end_their_task_at_once_with_a_refund(system, visual, message):
    url = await system.upload(png(size=(8, 6)))
    task = (await system.store.submit(USER, TaskRequest(image_url=url, prompts=("thing",), visual=visual))).task
    task = await run(system, task)
    assert (task.status, task.error_code) == (TaskStatus.ERROR, "INVALID_REQUEST")
    assert message in task.error_message
    assert await system.credits() == 1000


async def test_a_checkpoint_without_a_click_head_ends_the_task_with_a_sentence_and_a_refund(system, monkeypatch):
    def require_clicks():
        raise InvalidRequestError("no head for clicks")

    monkeypatch.setattr(system.network, "require_clicks", require_clicks)
    task = await run(system, await system.submit_clicks(Clicks([(1, 1)])))
    assert (task.status, task.error_message) == (TaskStatus.ERROR, "no head for clicks")
    assert await system.credits() == 1000


async def test_a_result_says_what_its_model_can_be_asked_by(system, monkeypatch):
    for kinds in (("words", "boxes", "clicks"), ("words",)):
        monkeypatch.setattr(system.network, "prompt_kinds", kinds)
        task = await run(system, await system.submit("left"))
        assert task.metadata["prompt_kinds"] == list(kinds)


async def test_where_prompts_overlap_the_higher_score_wins(system):
    predict = system.network.predict

    def scored(pairs):
        wide = system.network.detections(torch.tensor([[[1.0] * 6 + [-1.0] * 2]]), scores=[0.9])
        detections = zip(pairs, predict(pairs), strict=True)
        return [wide if prompt == "wide" else narrow for (_, prompt), narrow in detections]

    system.network.predict = scored
    task = await run(system, await system.submit("narrow", "wide"))
    together = np.asarray(Image.open(io.BytesIO(await stored(system, task.mask_image_url))))
    assert (together[:, :6] == 1).all()  # all of wide, which scores .9, is on top of narrow
    assert task.metadata["confidence"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        ("gone", "NOT_FOUND", "no longer exists"),
        ("undecodable", "INVALID_REQUEST", "not an image"),
        ("prompt", "INVALID_REQUEST", "99 tokens"),
    ],
)
async def test_what_cannot_work_ends_at_once_with_a_sentence_and_a_refund(system, spoil, code, message):
    before = await system.credits()
    task = await system.submit(
        "x" * 50 if spoil == "prompt" else "left", content=b"text" if spoil == "undecodable" else png()
    )
    if spoil == "gone":
        await system.objects.delete(system.objects.key_of(task.source_image_url))
    ended = await run(system, task)
    assert (ended.status, ended.error_code) == (TaskStatus.ERROR, code)
    assert message in ended.error_message
    assert await system.credits() == before
    assert await system.result_keys() == set()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "http://127.0.0.1:8000/files/../secret.png",
        "http://127.0.0.1:8000/files/users/somebody-else/images/a.png",
        "http://127.0.0.1:8000.evil.example/files/users/a/images/a.png",
        "",
    ],
)
async def test_only_images_of_our_own_store_and_the_tasks_user_are_fetched(system, url):
    asked = []
    get = system.objects.get
    system.objects.get = lambda key: asked.append(key) or get(key)
    task = await system.submit()
    system.tables.tasks[task.task_id] = replace(task, source_image_url=url)
    ended = await run(system, system.tables.tasks[task.task_id])
    assert ended.error_code == "NOT_FOUND"
    assert asked == []


async def test_an_image_is_read_by_its_key_and_results_are_addressed_like_it_whatever_the_public_base_is_here(system):
    task = await system.submit()
    moved = task.source_image_url.replace(system.objects.url("x.png").removesuffix("/x.png"), "http://127.0.0.1:9999/f")
    assert moved != task.source_image_url
    system.tables.tasks[task.task_id] = replace(task, source_image_url=moved)
    done = await run(system, system.tables.tasks[task.task_id])
    assert done.status == "done"
    for url in (done.mask_image_url, done.metadata["instances_url"]):
        key = url.removeprefix("http://127.0.0.1:9999/f/")
        assert key in done.object_keys
        await system.objects.get(key)


OUTAGE = UnavailableError("the disk is on fire at /secret/path")
STAGES = {
    "fetch": ("objects", "get", OUTAGE, "UNAVAILABLE"),
    "store": ("objects", "put", OUTAGE, "UNAVAILABLE"),
    "crash in fetch": ("objects", "get", ZeroDivisionError("a bug"), "INTERNAL_ERROR"),
    "crash in store": ("objects", "put", ZeroDivisionError("a bug"), "INTERNAL_ERROR"),
    "crash in finish": ("queue", "finish", ZeroDivisionError("a bug"), "INTERNAL_ERROR"),
    "finish": ("queue", "finish", OUTAGE, "UNAVAILABLE"),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_a_failure_at_any_stage_is_tried_again_and_then_works(system, stage):
    port, method, error, _ = STAGES[stage]
    times = 5 if stage == "finish" else 1  # finish itself tries five times
    faulty = Failing(getattr(system, port), method, *[error] * times)
    task = await system.submit()
    paid = await system.credits()
    again = await run(system, task, retry_after_s=0, **{port: faulty})
    assert again.status == TaskStatus.PROCESSING
    assert again.error_message is None
    done = await run(system, again, **{port: faulty})
    assert done.status == TaskStatus.DONE
    assert done.attempts.number == 0
    assert await system.credits() == paid
    assert set(done.object_keys) <= await system.result_keys()


@pytest.mark.parametrize("stage", STAGES)
async def test_a_failure_that_stays_ends_in_error_with_one_refund_and_keeps_secrets(stage):
    system = InferenceSystem(rules=Rules(max_attempts=2))
    before = await system.credits()
    port, method, error, code = STAGES[stage]
    faulty = Failing(getattr(system, port), method, *[error] * 99)
    task = await system.submit()
    for _ in range(2):
        task = await run(system, task, retry_after_s=0, **{port: faulty})
    assert (task.status, task.error_code) == (TaskStatus.ERROR, code)
    assert "secret" not in task.error_message
    assert await system.credits() == before
    if method != "finish":  # there it is not known whether it happened, so its objects are left to the collector
        assert await system.result_keys() == set()


async def test_a_network_that_fails_is_tried_again(system):
    system.network.fail = [InferenceError("CUDA error: device-side assert at 0xdeadbeef")]
    task = await run(system, await system.submit(), retry_after_s=0)
    assert task.status == TaskStatus.PROCESSING
    assert (await run(system, task)).status == TaskStatus.DONE


async def test_an_answer_lost_on_the_way_back_from_finish_is_no_second_result(system):
    lost = Failing(system.queue, "finish", OUTAGE, after=True)
    task = await run(system, await system.submit(), queue=lost)
    assert task.status == TaskStatus.DONE
    assert set(task.object_keys) == await system.result_keys()


async def held_up(system, task, *, lease_s=30.0, **options):
    """An attempt that waits inside the network; gives what runs it."""
    batcher = system.batcher()
    system.network.go.clear()
    claim = await system.queue.claim("late", task.task_id, lease_s=lease_s)
    running = asyncio.ensure_future(system.pipeline(batcher, lease_s=lease_s, **options).run(claim))
    async with asyncio.timeout(20):
        while not system.network.began.is_set():
            await asyncio.sleep(0.002)
    return running, batcher


async def test_the_late_result_of_a_stale_attempt_is_discarded_with_its_objects(system):
    task = await system.submit()
    running, batcher = await held_up(system, task)
    late = system.tables.tasks[task.task_id]
    system.tables.tasks[task.task_id] = replace(late, attempts=replace(late.attempts, number=2, worker="other"))
    system.network.go.set()
    with pytest.raises(LeaseLostError):
        await running
    assert await system.result_keys() == set()
    assert system.tables.tasks[task.task_id].status == TaskStatus.PROCESSING
    assert system.metrics.ends == {"LEASE_LOST": 1}
    await batcher.aclose()


async def test_a_task_that_its_owner_deletes_meanwhile_leaves_nothing(system):
    task = await system.submit()
    running, batcher = await held_up(system, task)
    await system.store.delete_task(USER, task.task_id)
    system.network.go.set()
    with pytest.raises(LeaseLostError):
        await running
    assert await system.result_keys() == set()
    await batcher.aclose()


async def test_a_cancelled_task_is_dropped_at_the_next_renewal(system):
    task = await system.submit()
    running, batcher = await held_up(system, task, lease_s=0.06)
    await system.store.cancel(USER, task.task_id)
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(running, 20)  # though the network is still held up
    system.network.go.set()
    await batcher.aclose()


async def test_leases_are_renewed_while_the_network_is_busy(system, monkeypatch):
    renewed, renew = [], system.queue.renew

    async def counted(lease, **options):
        renewed.append(lease)
        return await renew(lease, **options)

    monkeypatch.setattr(system.queue, "renew", counted)
    task = await system.submit()
    began = time.monotonic()
    running, batcher = await held_up(system, task, lease_s=0.9)
    async with asyncio.timeout(20):
        while len(renewed) < 3 or time.monotonic() - began < 1.0:
            await asyncio.sleep(0.01)
    assert await system.queue.claim("thief", task.task_id, lease_s=1) is None
    system.network.go.set()
    assert (await running).status == TaskStatus.DONE
    await batcher.aclose()


async def test_a_renewal_that_fails_unexpectedly_is_logged_and_the_next_one_is_tried(system, caplog):
    task = await system.submit()
    faulty = Failing(system.queue, "renew", ZeroDivisionError("a bug"))
    running, batcher = await held_up(system, task, lease_s=0.3, queue=faulty)
    await asyncio.sleep(0.7)
    assert await system.queue.claim("thief", task.task_id, lease_s=1) is None
    system.network.go.set()
    assert (await running).status == TaskStatus.DONE
    assert "renewing a lease failed" in caplog.text
    await batcher.aclose()


async def test_stopping_gives_the_lease_back_unused(system):
    task = await system.submit()
    running, batcher = await held_up(system, task)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    attempts = system.tables.tasks[task.task_id].attempts
    assert (attempts.counted, attempts.worker) == (0, None)
    assert await system.queue.claim("next", task.task_id, lease_s=1) is not None
    system.network.go.set()
    await batcher.aclose()


async def test_a_finish_that_has_begun_is_brought_to_its_end_even_when_stopped(system):
    finishing, go = asyncio.Event(), asyncio.Event()

    class Slow:
        def __getattr__(self, name):
            return getattr(system.queue, name)

        async def finish(self, lease, outcome):
            finishing.set()
            await go.wait()
            return await system.queue.finish(lease, outcome)

    batcher = system.batcher()
    task = await system.submit()
    claim = await system.queue.claim("w", task.task_id, lease_s=30)
    running = asyncio.ensure_future(system.pipeline(batcher, queue=Slow()).run(claim))
    await finishing.wait()
    running.cancel()
    await asyncio.sleep(0.01)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    done = system.tables.tasks[task.task_id]
    assert done.status == TaskStatus.DONE
    assert set(done.object_keys) == await system.result_keys()
    await batcher.aclose()


async def test_a_key_under_the_users_prefix_is_unguessable_and_new_for_each_attempt(system):
    task = await system.submit()
    done = await run(system, task)
    for key in done.object_keys:
        assert key.startswith(f"users/{USER.user_id}/results/{task.task_id}/")
        assert len(key.rpartition("/")[2].partition(".")[0]) == 32


async def test_more_than_255_instances_need_16_bits(system):
    def many(pairs):
        cells = torch.full((300, 20, 20), -1.0)
        cells.view(300, -1)[range(300), range(300)] = 1.0
        return [system.network.detections(cells, scores=np.linspace(1, 0.6, 300)) for _ in pairs]

    system.network.predict = many
    task = await run(system, await system.submit(content=png(size=(20, 20))))
    labels = np.asarray(Image.open(io.BytesIO(await stored(system, task.mask_image_url))))
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels.ravel()[:300], np.arange(1, 301))
