"""Fake workers on a real PostgreSQL behind PostgREST, on this machine, as the tests start them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks.fleet.simulation import DELIVERIES_S, Fleet, Seen, percentile
from benchmarks.http_load import read_body, request_bytes

if TYPE_CHECKING:
    from tests.cloud.conftest import Project

_CONNECTIONS = 16
_USERS = 50  # submits of one user wait for each other
_LEASE_S = 600


@contextlib.contextmanager
def real_project() -> Iterator[Project]:
    """Run PostgreSQL and PostgREST with the schema of s3seg, and without limits of rates."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.cloud.conftest import supabase
    from tests.cloud.parts.postgres import postgres

    with tempfile.TemporaryDirectory() as name:
        home = Path(name, "postgres")
        home.mkdir()
        with postgres(home) as server, supabase(Path(name), server) as project:
            project.database.execute("update private.rate_limits set per_minute = 1000000000")
            yield project


class _Api:
    """Calls functions of the database over connections that stay open; takes little processor time itself."""

    def __init__(self, project: Project, token: str) -> None:
        parts = urlsplit(project.postgrest.url)
        self._address = (parts.hostname, parts.port)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call a function; raises RuntimeError if it fails."""
        body = json.dumps(arguments).encode()
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        writer.write(request_bytes("POST", f"/rpc/{function}", self._headers, body))
        head = await reader.readuntil(b"\r\n\r\n")
        answer = await read_body(reader, head.lower())
        self._idle.append((reader, writer))
        if head[9:10] != b"2":
            raise RuntimeError(f"{function}: {head[9:12]!r} {answer[:200]!r}")
        return json.loads(answer) if answer else None

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


class _Users:
    """Users with an image each, who submit."""

    def __init__(self, project: Project, count: int = _USERS) -> None:
        self._apis: list[tuple[_Api, str]] = []
        for _ in range(count):
            user_id = str(uuid.uuid4())
            project.sign_up(user_id)
            project.database.execute("select public.operator_adjust(%s, 100000000)", (user_id,))
            url = f"https://objects.example/files/users/{user_id}/images/{'0' * 32}.png"
            project.database.execute(
                "insert into public.images (user_id, object_key, image_url, content_type, size_bytes, width, height) "
                "values (%s, %s, %s, 'image/png', 1, 1, 1)",
                (user_id, f"users/{user_id}/images/{'0' * 32}.png", url),
            )
            self._apis.append((_Api(project, project.issuer.user_token(user_id)), url))

    async def submit(self) -> str:
        api, url = random.choice(self._apis)
        answer = await api.call("submit_segmentation", {"p_image_url": url, "p_text_prompts": ["cat"]})
        return answer["task"]["id"]

    def close(self) -> None:
        for api, _ in self._apis:
            api.close()


async def _claim(api: _Api, worker: str) -> dict[str, Any] | None:
    found = await api.call("worker_claim_batch", {"p_worker": worker, "p_limit": 1, "p_lease_s": _LEASE_S})
    return found[0] if found else None


async def _finish(api: _Api, worker: str, task: dict[str, Any]) -> None:
    mask = f"{task['source_image_url']}.mask"
    arguments = {"p_task_id": task["id"], "p_worker": worker, "p_attempt": task["attempt"], "p_mask_image_url": mask}
    await api.call("worker_finish", {**arguments, "p_labels": [], "p_metadata": {}, "p_object_keys": []})


async def _look_for_deliveries(api: _Api) -> None:
    await api.call("worker_claim_deliveries", {"p_limit": 16, "p_lease_s": 120, "p_kept_days": 7})


async def measure_calls(project: Project, *, seconds: float, held: Sequence[int]) -> dict[str, dict[str, float]]:
    """Measure each call with one connection and with many; claims that find nothing also while tasks are held.

    Returns:
        By call: milliseconds with one connection (``alone_ms``), and calls a second with 16 (``per_second``). An empty
        claim while so many tasks are held is ``idle, 1000 held``.
    """
    api, users = _Api(project, project.issuer.role_token("service_role")), _Users(project)
    claimed: list[dict[str, Any]] = []

    async def claim() -> None:
        task = await _claim(api, "w")
        if task is None:
            raise RuntimeError("there were fewer tasks than claims")
        claimed.append(task)

    async def finish() -> None:
        await _finish(api, "w", claimed.pop())

    found: dict[str, dict[str, float]] = {}
    found["idle"] = await _rates(lambda: _claim(api, "w"), seconds)
    found["deliveries"] = await _rates(lambda: _look_for_deliveries(api), seconds)
    found["submit"] = await _rates(users.submit, seconds)
    waiting = project.database.execute("select count(*) from private.leases")[0][0]
    found["claim"] = await _rates(claim, seconds, most=waiting)
    found["finish"] = await _rates(finish, seconds, most=len(claimed))
    project.database.execute("delete from public.segmentation_results")
    for count in held:
        if count:
            _hold(project, count)
            found[f"idle, {count} held"] = await _rates(lambda: _claim(api, "w"), seconds)
            project.database.execute("delete from public.segmentation_results")
    project.database.execute("vacuum analyze")
    api.close()
    users.close()
    return found


async def _rates(call: Callable[[], Awaitable[object]], seconds: float, *, most: int = 1 << 60) -> dict[str, float]:
    """Call for so many seconds, or ``most`` times, on one connection, then on many."""
    times: list[float] = []
    end = time.perf_counter() + seconds / 3
    while time.perf_counter() < end and len(times) < most // 4:
        begin = time.perf_counter()
        await call()
        times.append(time.perf_counter() - begin)
    left = most - len(times)
    done = 0

    async def lane() -> None:
        nonlocal left, done
        while time.perf_counter() < end and left > 0:
            left -= 1
            await call()
            done += 1

    begin = time.perf_counter()
    end = begin + seconds
    await asyncio.gather(*(lane() for _ in range(_CONNECTIONS)))
    return {
        "alone_ms": round(statistics.median(times) * 1000, 3),
        "per_second": round(done / (time.perf_counter() - begin), 1),
    }


def _hold(project: Project, count: int) -> None:
    """Put in tasks that a worker holds."""
    project.database.execute(
        """
        with made as (
          insert into public.segmentation_results (user_id, source_image_url, text_prompts, text_prompt, status,
              fingerprint, created_at, updated_at, deadline)
            select (select user_id from public.profiles limit 1), 'x', '{cat}', 'cat', 'processing', 'x', now(), now(),
                   now() + interval '1 hour' from generate_series(1, %s) returning *)
        insert into private.leases (task_id, user_id, created_at, deadline, attempt, worker, expires_at)
          select id, user_id, created_at, deadline, 1, 'held', now() + interval '1 hour' from made
        """,
        (count,),
    )
    project.database.execute("vacuum analyze private.leases")


async def run_fleet(project: Project, fleet: Fleet, *, seconds: float) -> Seen:
    """Run fake workers, which sleep instead of working, and users who submit at random times."""
    api, users = _Api(project, project.issuer.role_token("service_role")), _Users(project)
    submitted: dict[str, float] = {}
    waits: list[float] = []
    polls: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def tried(call: Awaitable[Any]) -> Any:
        nonlocal failed
        try:
            return await call
        except (RuntimeError, OSError, asyncio.IncompleteReadError):
            failed += 1
            return None

    async def worker(number: int) -> None:
        name = f"w{number}"
        await asyncio.sleep(random.uniform(0, fleet.poll_s))
        while (begin := time.perf_counter()) < end:
            task = await tried(_claim(api, name))
            if task is None:
                polls.append(time.perf_counter() - begin)
                await asyncio.sleep(fleet.poll_s * random.uniform(0.5, 1.5))
                continue
            waits.append(max(0.0, time.perf_counter() - submitted.get(task["id"], time.perf_counter())))
            await asyncio.sleep(fleet.task_s)
            await tried(_finish(api, name, task))

    async def webhooks() -> None:
        await asyncio.sleep(random.uniform(0, DELIVERIES_S))
        while time.perf_counter() < end:
            await tried(_look_for_deliveries(api))
            await asyncio.sleep(DELIVERIES_S * random.uniform(0.5, 1.5))

    async def one() -> None:
        task_id = await tried(users.submit())
        if task_id is not None:
            submitted[task_id] = time.perf_counter()

    async def client() -> None:
        sent: set[asyncio.Task[None]] = set()
        while time.perf_counter() < end:
            await asyncio.sleep(random.expovariate(fleet.arrivals))
            task = asyncio.create_task(one())
            sent.add(task)
            task.add_done_callback(sent.discard)
        await asyncio.gather(*sent)

    work = [worker(number) for number in range(fleet.workers)]
    sending = [webhooks() for _ in range(fleet.workers)]
    await asyncio.gather(*work, *sending, *([client()] if fleet.arrivals else []))
    waiting = project.database.execute("select count(*) from private.leases where worker is null")[0][0]
    project.database.execute("delete from public.segmentation_results")
    api.close()
    users.close()
    return Seen(
        workers=fleet.workers,
        poll_s=fleet.poll_s,
        busy=fleet.busy,
        claims_per_s=len(waits) / seconds,
        polls_per_s=len(polls) / seconds,
        wait_p50_ms=statistics.median(waits) * 1000 if waits else 0.0,
        wait_p99_ms=percentile(waits, 0.99) * 1000,
        poll_p50_ms=statistics.median(polls) * 1000 if polls else 0.0,
        poll_p99_ms=percentile(polls, 0.99) * 1000,
        used=None,
        waiting=waiting,
        failed=failed,
    )
