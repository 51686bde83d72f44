"""The worker takes what waits, refuses what is too much, drops what nobody wants, and gives back what it leaves."""

from __future__ import annotations

import asyncio
from io import BytesIO

import pytest
from PIL import Image

import s3seg
from s3seg.app.settings import Settings
from s3seg.errors import CheckpointError, CheckpointNotFoundError, ImageDecodeError, NotFoundError, UnavailableError
from s3seg.inference.engine import ModelState
from s3seg.inference.worker import WorkerLimits
from s3seg.tasks.model import TaskStatus
from tests.helpers.gpu_house import STREET, USER, png

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(house, task):
    await until(lambda: house.tables.tasks[task.task_id].ended)
    return house.tables.tasks[task.task_id]


async def started(house, **options):
    engine = house.engine(**options)
    engine.start()
    await engine.loaded()
    house.network.began.clear()  # by the warm-up
    return engine


async def test_it_takes_what_waits_without_being_told(house):
    tasks = [await house.submit(content=png(n)) for n in range(5)]
    engine = await started(house)
    tasks.append(await house.submit())
    assert {(await ended(house, task)).status for task in tasks} == {TaskStatus.DONE}
    await engine.aclose()


async def test_a_wake_in_the_same_process_needs_no_polling(house):
    engine = await started(house, worker=WorkerLimits(poll_s=3600), wait_for_work=house.inference.wait)
    task = await house.submit()
    await house.inference.wake(task)
    await ended(house, task)
    await engine.aclose()


async def test_several_workers_share_a_queue_and_do_nothing_twice(house):
    engines = [await started(house, worker=WorkerLimits(claimed=2, poll_s=0.01)) for _ in range(3)]
    tasks = [await house.submit(content=png(n)) for n in range(24)]
    for task in tasks:
        await ended(house, task)
    assert house.metrics.ends == {"DONE": 24}
    for engine in engines:
        await engine.aclose()


async def test_it_claims_no_more_than_its_share(house):
    house.network.go.clear()
    engine = house.engine(worker=WorkerLimits(claimed=3, poll_s=0.01))
    engine.start()
    house.network.go.set()
    await engine.loaded()
    house.network.go.clear()
    for n in range(8):
        await house.submit(content=png(n))
    await until(lambda: engine.worker.load == 3)
    await asyncio.sleep(0.1)
    statuses = [task.status for task in house.tables.tasks.values()]
    assert statuses.count(TaskStatus.PROCESSING) == 3
    house.network.go.set()
    await until(lambda: all(task.ended for task in house.tables.tasks.values()))
    await engine.aclose()


async def test_a_failed_attempt_is_taken_up_again_until_it_works(house):
    engine = await started(house)
    from s3seg.errors import InferenceError

    house.network.fail = [InferenceError("a hiccup"), InferenceError("a hiccup")]
    task = await house.submit()
    assert (await engine.worker.predict(task.task_id)).status == TaskStatus.DONE
    assert house.metrics.ends == {"RETRY": 2, "DONE": 1}
    await engine.aclose()


async def test_tasks_that_nobody_can_finish_are_ended_and_refunded(house):
    from dataclasses import replace
    from datetime import timedelta

    before = await house.credits()
    task = await house.submit()
    house.tables.tasks[task.task_id] = replace(task, deadline=task.created_at - timedelta(seconds=1))
    engine = await started(house)
    assert (await ended(house, task)).status == TaskStatus.ERROR
    assert await house.credits() == before
    await engine.aclose()


async def test_asking_for_a_task_that_another_holds_waits_for_its_result(house):
    engine = await started(house, worker=WorkerLimits(poll_s=3600))
    task = await house.submit()
    claim = await house.queue.claim("another", task.task_id, lease_s=60)
    asking = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await asyncio.sleep(0.1)
    assert not asking.done()
    await house.pipeline(engine.batcher).run(claim)
    assert (await asking).status == TaskStatus.DONE
    assert house.metrics.ends == {"DONE": 1}
    await engine.aclose()


async def test_all_who_ask_for_one_task_get_the_one_result(house):
    engine = await started(house, worker=WorkerLimits(poll_s=3600))
    task = await house.submit()
    answers = await asyncio.gather(*(engine.worker.predict(task.task_id) for _ in range(5)))
    assert len({answer.mask_image_url for answer in answers}) == 1
    assert house.metrics.ends == {"DONE": 1}
    with pytest.raises(NotFoundError):
        await engine.worker.predict("no such task")
    await engine.aclose()


async def test_too_much_is_refused_at_once_and_says_when_to_come_back(house):
    engine = await started(house, worker=WorkerLimits(claimed=1, admitted=3, poll_s=3600))
    for n in range(4):  # so that a rate is known
        await engine.worker.predict((await house.submit(content=png(n))).task_id)
    house.network.go.clear()
    tasks = [await house.submit(content=png(n)) for n in range(100, 104)]
    asking = [asyncio.ensure_future(engine.worker.predict(task.task_id)) for task in tasks[:3]]
    await until(lambda: engine.worker.load == 3)
    with pytest.raises(UnavailableError, match="at capacity") as refusal:
        await engine.worker.predict(tasks[3].task_id)
    assert 1 <= refusal.value.retry_after <= 60
    assert house.tables.tasks[tasks[3].task_id].status == TaskStatus.PENDING  # it was not claimed
    house.network.go.set()
    await asyncio.gather(*asking)
    await engine.worker.predict(tasks[3].task_id)
    await engine.aclose()


async def test_what_nobody_waits_for_any_more_is_dropped_before_the_network_sees_it(house):
    engine = await started(house, worker=WorkerLimits(poll_s=3600))
    house.network.go.clear()
    first = asyncio.ensure_future(engine.worker.predict((await house.submit(content=png(1))).task_id))
    await until(house.network.began.is_set)
    task = await house.submit("unwanted", content=png(2))
    leaving = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await until(lambda: house.tables.tasks[task.task_id].status == TaskStatus.PROCESSING)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: house.metrics.ends["RELEASED"] == 1)
    house.network.go.set()
    await first
    assert ["unwanted"] not in house.network.asked
    assert house.tables.tasks[task.task_id].attempts.counted == 0  # still waits, unharmed
    assert (await engine.worker.predict(task.task_id)).status == TaskStatus.DONE
    await engine.aclose()


async def test_what_the_network_has_begun_goes_on_without_its_client(house):
    engine = await started(house, worker=WorkerLimits(poll_s=3600))
    house.network.go.clear()
    task = await house.submit()
    leaving = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await until(house.network.began.is_set)
    await asyncio.sleep(0.02)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    house.network.go.set()
    assert (await ended(house, task)).status == TaskStatus.DONE
    await engine.aclose()


async def test_what_has_ended_is_answered_without_room_and_while_it_drains(house):
    engine = await started(house, worker=WorkerLimits(claimed=1, admitted=1, poll_s=3600))
    done = await engine.worker.predict((await house.submit()).task_id)
    cancelled = await house.store.cancel(USER, (await house.submit()).task_id)
    house.network.go.clear()
    other = await house.submit(content=png(1))
    asking = asyncio.ensure_future(engine.worker.predict(other.task_id))
    await until(lambda: engine.worker.load == 1)
    with pytest.raises(UnavailableError, match="at capacity"):
        engine.worker.require_room()
    assert await engine.worker.predict(done.task_id) == done
    assert (await engine.worker.predict(cancelled.task_id)).status == TaskStatus.ERROR
    engine.worker.drain()
    assert await engine.worker.predict(done.task_id) == done
    house.network.go.set()
    await asking
    await engine.aclose()


async def test_draining_finishes_what_is_in_work_and_takes_nothing_new(house):
    engine = await started(house)
    house.network.go.clear()
    task = await house.submit()
    await until(house.network.began.is_set)
    engine.worker.drain()
    late = await house.submit(content=png(9))
    with pytest.raises(UnavailableError, match="stopping"):
        await engine.worker.predict(late.task_id)
    closing = asyncio.ensure_future(engine.aclose(grace_s=20))
    await asyncio.sleep(0.05)
    house.network.go.set()
    await closing
    assert house.tables.tasks[task.task_id].status == TaskStatus.DONE
    assert house.tables.tasks[late.task_id].status == TaskStatus.PENDING


async def test_what_is_not_done_in_time_is_given_back(house):
    engine = await started(house)
    house.network.go.clear()
    task = await house.submit()
    asking = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await until(house.network.began.is_set)
    closing = asyncio.ensure_future(engine.aclose(grace_s=0.01))
    await until(lambda: house.metrics.ends["RELEASED"] == 1)
    with pytest.raises(UnavailableError, match="stopping"):
        await asking
    house.network.go.set()
    await closing
    assert house.tables.tasks[task.task_id].attempts.counted == 0
    successor = await started(house)
    assert (await ended(house, task)).status == TaskStatus.DONE
    await successor.aclose()


async def test_an_outage_of_the_queue_is_survived(house):
    class Flaky:
        down = True

        def __getattr__(self, name):
            return getattr(house.queue, name)

        async def claim_batch(self, *args, **kwargs):
            if self.down:
                raise UnavailableError("the database is locked")
            return await house.queue.claim_batch(*args, **kwargs)

    flaky = Flaky()
    engine = await started(house, queue=flaky)
    task = await house.submit()
    await asyncio.sleep(0.1)
    flaky.down = False
    assert (await ended(house, task)).status == TaskStatus.DONE
    await engine.aclose()


async def test_nothing_is_claimed_before_the_model_is_warm_or_if_it_cannot_be_loaded(house):
    def missing():
        raise CheckpointNotFoundError("no checkpoint at /somewhere")

    engine = house.engine(load=missing)
    task = await house.submit()
    engine.start()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        await engine.loaded()
    assert engine.state is ModelState.FAILED
    await asyncio.sleep(0.1)
    assert house.tables.tasks[task.task_id].status == TaskStatus.PENDING
    await engine.aclose()


async def test_a_program_may_hand_in_what_a_phone_took_and_nothing_but_pictures():
    settings = Settings(object_store="memory", task_store="memory", rate_limits="off")
    service = s3seg.local(settings)  # no weights are needed to upload
    buffer = BytesIO()
    first, second = Image.new("RGB", (8, 6)), Image.new("RGB", (4, 3))
    first.save(buffer, format="MPO", save_all=True, append_images=[second])
    stored = await service.upload(buffer.getvalue())
    assert (stored.content_type, stored.width, stored.height) == ("image/jpeg", 8, 6)
    with pytest.raises(ImageDecodeError, match="not a PNG, JPEG or WebP"):
        await service.upload(b"GIF89a")


async def test_the_whole_service_runs_within_a_program(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        object_store="memory", task_store="memory", rate_limits="off", checkpoint="embedded", device="cpu"
    )
    async with s3seg.local(settings) as service:
        image = await service.upload(STREET)
        both, again = await asyncio.gather(
            service.segment(image, ["car", "tree"]), service.segment(image, ["xylophone"])
        )
    assert [result.prompt for result in both] == ["car", "tree"]
    assert len(both[0]) >= 1
    assert both[0].size == (640, 800)
    assert min(both[0].scores) > 0.3
    assert len(again[0]) == 0
    assert USER.user_id != service.user.user_id
