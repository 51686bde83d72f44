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
from tests.helpers.inference_system import STREET, USER, png

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(system, task):
    await until(lambda: system.tables.tasks[task.task_id].ended)
    return system.tables.tasks[task.task_id]


async def started(system, **options):
    engine = system.engine(**options)
    engine.start()
    await engine.loaded()
    system.network.began.clear()  # by the warm-up
    return engine


async def test_it_takes_what_waits_without_being_told(system):
    tasks = [await system.submit(content=png(n)) for n in range(5)]
    engine = await started(system)
    tasks.append(await system.submit())
    assert {(await ended(system, task)).status for task in tasks} == {TaskStatus.DONE}
    await engine.aclose()


async def test_a_wake_in_the_same_process_needs_no_polling(system):
    engine = await started(system, worker=WorkerLimits(poll_s=3600), wait_for_work=system.inference.wait)
    task = await system.submit()
    await system.inference.wake(task)
    await ended(system, task)
    await engine.aclose()


async def test_several_workers_share_a_queue_and_do_nothing_twice(system):
    engines = [await started(system, worker=WorkerLimits(claimed=2, poll_s=0.01)) for _ in range(3)]
    tasks = [await system.submit(content=png(n)) for n in range(24)]
    for task in tasks:
        await ended(system, task)
    assert system.metrics.ends == {"DONE": 24}
    for engine in engines:
        await engine.aclose()


async def test_it_claims_no_more_than_its_share(system):
    system.network.go.clear()
    engine = system.engine(worker=WorkerLimits(claimed=3, poll_s=0.01))
    engine.start()
    system.network.go.set()
    await engine.loaded()
    system.network.go.clear()
    for n in range(8):
        await system.submit(content=png(n))
    await until(lambda: engine.worker.load == 3)
    await asyncio.sleep(0.1)
    statuses = [task.status for task in system.tables.tasks.values()]
    assert statuses.count(TaskStatus.PROCESSING) == 3
    system.network.go.set()
    await until(lambda: all(task.ended for task in system.tables.tasks.values()))
    await engine.aclose()


async def test_a_failed_attempt_is_taken_up_again_until_it_works(system):
    engine = await started(system)
    from s3seg.errors import InferenceError

    system.network.fail = [InferenceError("a hiccup"), InferenceError("a hiccup")]
    task = await system.submit()
    assert (await engine.worker.predict(task.task_id)).status == TaskStatus.DONE
    assert system.metrics.ends == {"RETRY": 2, "DONE": 1}
    await engine.aclose()


async def test_tasks_that_nobody_can_finish_are_ended_and_refunded(system):
    from dataclasses import replace
    from datetime import timedelta

    before = await system.credits()
    task = await system.submit()
    system.tables.tasks[task.task_id] = replace(task, deadline=task.created_at - timedelta(seconds=1))
    engine = await started(system)
    assert (await ended(system, task)).status == TaskStatus.ERROR
    assert await system.credits() == before
    await engine.aclose()


async def test_asking_for_a_task_that_another_holds_waits_for_its_result(system):
    engine = await started(system, worker=WorkerLimits(poll_s=3600))
    task = await system.submit()
    claim = await system.queue.claim("another", task.task_id, lease_s=60)
    asking = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await asyncio.sleep(0.1)
    assert not asking.done()
    await system.pipeline(engine.batcher).run(claim)
    assert (await asking).status == TaskStatus.DONE
    assert system.metrics.ends == {"DONE": 1}
    await engine.aclose()


async def test_all_who_ask_for_one_task_get_the_one_result(system):
    engine = await started(system, worker=WorkerLimits(poll_s=3600))
    task = await system.submit()
    answers = await asyncio.gather(*(engine.worker.predict(task.task_id) for _ in range(5)))
    assert len({answer.mask_image_url for answer in answers}) == 1
    assert system.metrics.ends == {"DONE": 1}
    with pytest.raises(NotFoundError):
        await engine.worker.predict("no such task")
    await engine.aclose()


async def test_too_much_is_refused_at_once_and_says_when_to_come_back(system):
    engine = await started(system, worker=WorkerLimits(claimed=1, admitted=3, poll_s=3600))
    for n in range(4):  # so that a rate is known
        await engine.worker.predict((await system.submit(content=png(n))).task_id)
    system.network.go.clear()
    tasks = [await system.submit(content=png(n)) for n in range(100, 104)]
    asking = [asyncio.ensure_future(engine.worker.predict(task.task_id)) for task in tasks[:3]]
    await until(lambda: engine.worker.load == 3)
    with pytest.raises(UnavailableError, match="at capacity") as refusal:
        await engine.worker.predict(tasks[3].task_id)
    assert 1 <= refusal.value.retry_after <= 60
    assert system.tables.tasks[tasks[3].task_id].status == TaskStatus.PENDING  # it was not claimed
    system.network.go.set()
    await asyncio.gather(*asking)
    await engine.worker.predict(tasks[3].task_id)
    await engine.aclose()


async def test_what_nobody_waits_for_any_more_is_dropped_before_the_network_sees_it(system):
    engine = await started(system, worker=WorkerLimits(poll_s=3600))
    system.network.go.clear()
    first = asyncio.ensure_future(engine.worker.predict((await system.submit(content=png(1))).task_id))
    await until(system.network.began.is_set)
    task = await system.submit("unwanted", content=png(2))
    leaving = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await until(lambda: system.tables.tasks[task.task_id].status == TaskStatus.PROCESSING)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: system.metrics.ends["RELEASED"] == 1)
    system.network.go.set()
    await first
    assert ["unwanted"] not in system.network.asked
    assert system.tables.tasks[task.task_id].attempts.counted == 0  # still waits, unharmed
    assert (await engine.worker.predict(task.task_id)).status == TaskStatus.DONE
    await engine.aclose()


async def test_what_the_network_has_begun_goes_on_without_its_client(system):
    engine = await started(system, worker=WorkerLimits(poll_s=3600))
    system.network.go.clear()
    task = await system.submit()
    leaving = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await until(system.network.began.is_set)
    await asyncio.sleep(0.02)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    system.network.go.set()
    assert (await ended(system, task)).status == TaskStatus.DONE
    await engine.aclose()


async def test_what_has_ended_is_answered_without_room_and_while_it_drains(system):
    engine = await started(system, worker=WorkerLimits(claimed=1, admitted=1, poll_s=3600))
    done = await engine.worker.predict((await system.submit()).task_id)
    cancelled = await system.store.cancel(USER, (await system.submit()).task_id)
    system.network.go.clear()
    other = await system.submit(content=png(1))
    asking = asyncio.ensure_future(engine.worker.predict(other.task_id))
    await until(lambda: engine.worker.load == 1)
    with pytest.raises(UnavailableError, match="at capacity"):
        engine.worker.require_room()
    assert await engine.worker.predict(done.task_id) == done
    assert (await engine.worker.predict(cancelled.task_id)).status == TaskStatus.ERROR
    engine.worker.drain()
    assert await engine.worker.predict(done.task_id) == done
    system.network.go.set()
    await asking
    await engine.aclose()


async def test_draining_finishes_what_is_in_work_and_takes_nothing_new(system):
    engine = await started(system)
    system.network.go.clear()
    task = await system.submit()
    await until(system.network.began.is_set)
    engine.worker.drain()
    late = await system.submit(content=png(9))
    with pytest.raises(UnavailableError, match="stopping"):
        await engine.worker.predict(late.task_id)
    closing = asyncio.ensure_future(engine.aclose(grace_s=20))
    await asyncio.sleep(0.05)
    system.network.go.set()
    await closing
    assert system.tables.tasks[task.task_id].status == TaskStatus.DONE
    assert system.tables.tasks[late.task_id].status == TaskStatus.PENDING


async def test_what_is_not_done_in_time_is_given_back(system):
    engine = await started(system)
    system.network.go.clear()
    task = await system.submit()
    asking = asyncio.ensure_future(engine.worker.predict(task.task_id))
    await until(system.network.began.is_set)
    closing = asyncio.ensure_future(engine.aclose(grace_s=0.01))
    await until(lambda: system.metrics.ends["RELEASED"] == 1)
    with pytest.raises(UnavailableError, match="stopping"):
        await asking
    system.network.go.set()
    await closing
    assert system.tables.tasks[task.task_id].attempts.counted == 0
    successor = await started(system)
    assert (await ended(system, task)).status == TaskStatus.DONE
    await successor.aclose()


async def test_an_outage_of_the_queue_is_survived(system):
    class Flaky:
        down = True

        def __getattr__(self, name):
            return getattr(system.queue, name)

        async def claim_batch(self, *args, **kwargs):
            if self.down:
                raise UnavailableError("the database is locked")
            return await system.queue.claim_batch(*args, **kwargs)

    flaky = Flaky()
    engine = await started(system, queue=flaky)
    task = await system.submit()
    await asyncio.sleep(0.1)
    flaky.down = False
    assert (await ended(system, task)).status == TaskStatus.DONE
    await engine.aclose()


async def test_nothing_is_claimed_before_the_model_is_warm_or_if_it_cannot_be_loaded(system):
    def missing():
        raise CheckpointNotFoundError("no checkpoint at /somewhere")

    engine = system.engine(load=missing)
    task = await system.submit()
    engine.start()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        await engine.loaded()
    assert engine.state is ModelState.FAILED
    await asyncio.sleep(0.1)
    assert system.tables.tasks[task.task_id].status == TaskStatus.PENDING
    await engine.aclose()


async def test_a_program_may_hand_in_what_a_phone_took_and_nothing_but_pictures():
    settings = Settings(object_store="memory", task_store="memory", rate_limits="off")
    service = s3seg.local(settings)  # no weights are needed to upload
    buffer = BytesIO()
    first, second = Image.new("RGB", (8, 6)), Image.new("RGB", (4, 3))
    first.save(buffer, format="MPO", save_all=True, append_images=[second])
    stored = await service.upload(buffer.getvalue())
    assert (stored.content_type, stored.width, stored.height) == ("image/jpeg", 8, 6)
    with pytest.raises(ImageDecodeError, match="begins like a GIF file"):
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
