"""A process that the crash tests start and kill: it submits or processes tasks forever, and prints what was done.

Settings come from the environment. Each line on stdout reports a fact that must still hold after any crash.
"""

from __future__ import annotations

import asyncio
import random
import sys
import uuid

from s3seg.app import Parts
from s3seg.errors import LeaseLostError
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.model import Failure, Outcome, TaskRequest
from s3seg.tasks.object_keys import new_result_key
from s3seg.tasks.records import Identity


def say(*words: str) -> None:
    print(*words, flush=True)


async def submit_forever(parts: Parts, user_id: str, image_url: str) -> None:
    caller = Identity(user_id=user_id)
    while True:
        key = uuid.uuid4().hex
        prompts = tuple(f"p{n}" for n in range(random.randint(1, 3)))
        request = TaskRequest(image_url=image_url, prompts=prompts, idempotency_key=key)
        say("asked", key)
        answers = await asyncio.gather(*(parts.task_store.submit(caller, request) for _ in range(2)))
        assert answers[0].task.task_id == answers[1].task.task_id
        say("accepted", answers[0].task.task_id, key)
        if random.random() < 0.1:
            await parts.task_store.cancel(caller, answers[0].task.task_id)


async def work_forever(parts: Parts, worker: str) -> None:
    while True:
        for claim in await parts.task_queue.claim_batch(worker, limit=3, lease_s=1):
            task, lease = claim.task, claim.lease
            mask = new_result_key(task.user_id, task.task_id, "image/png")
            await parts.objects.put(mask, task.task_id.encode() * 2000)
            outcome = Outcome(
                mask_image_url=parts.objects.url(mask),
                labels=task.prompts,
                metadata={"inference_time_ms": 1.0, "confidence": 0.5, "model_version": "t"},
                object_keys=(mask,),
            )
            try:
                chance = random.random()
                if chance < 0.1:
                    await parts.task_queue.fail(lease, Failure(code="INFERENCE_FAILED", message="no"))
                elif chance < 0.2:
                    await parts.task_queue.release(lease)
                else:
                    lease = await parts.task_queue.renew(lease, lease_s=1)
                    await parts.task_queue.finish(lease, outcome)
                    say("finished", task.task_id, mask)
            except LeaseLostError:
                await parts.objects.delete(mask)
        await parts.task_queue.reap()
        say("alive")


async def count_forever(parts: Parts, user_id: str) -> None:
    while True:
        if (await parts.rate_limiter.take(Identity(user_id=user_id), Action.UPLOAD, Tier.FREE)).allowed:
            say("allowed")
        else:
            say("refused")
            await asyncio.sleep(0.01)


ROLES = {"submit": submit_forever, "work": work_forever, "count": count_forever}


def main() -> None:
    role, *arguments = sys.argv[1:]
    asyncio.run(ROLES[role](Parts(), *arguments))


if __name__ == "__main__":
    main()
