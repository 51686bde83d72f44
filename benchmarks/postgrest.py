"""Polling, listing and submitting through the Supabase adapter, beside the same queries sent with httpx alone.

PostgreSQL and PostgREST are real and on this machine (see tests/cloud), without a gateway; both ways share them, and
each keeps its connections.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from pydantic import SecretStr

from benchmarks.http_load import Connections, request_bytes
from benchmarks.timing import in_turns, show
from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import _TASK_COLUMNS, SupabaseTaskStore
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity, NewImage

CALLS = 40
AT_ONCE = 8
PUBLIC_BASE = "https://objects.example/files"


def main(arguments: Sequence[str] = ()) -> int:
    """Print the table, or with ``--account`` what each layer adds to reading a task."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks postgrest", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--account", action="store_true", help="what each layer adds to reading a task")
    measure = _account if parser.parse_args(arguments).account else _measure
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tests.cloud.conftest import supabase
    from tests.cloud.parts.postgres import postgres

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "postgres"
        home.mkdir()
        with postgres(home) as server, supabase(folder, server) as project, asyncio.Runner() as runner:
            project.database.execute("update private.rate_limits set per_minute = 1000000000")
            user_id = str(uuid.uuid4())
            project.sign_up(user_id)
            project.database.execute("select public.operator_adjust(%s, 100000)", (user_id,))
            caller = Identity(user_id=user_id, token=project.issuer.user_token(user_id))
            measure(runner, project.postgrest.url, caller)
    return 0


def _measure(runner: asyncio.Runner, url: str, caller: Identity) -> None:
    headers = {"Authorization": f"Bearer {caller.token}", "apikey": "x"}
    rest = Rest(url, SecretStr("sb_publishable_x"), path="")  # PostgREST itself
    store = SupabaseTaskStore(rest, public_base=PUBLIC_BASE)
    raw = httpx.AsyncClient(base_url=url, headers=headers, trust_env=False)
    image = NewImage(
        object_key=new_image_key(caller.user_id, "image/png"), content_type="image/png", size_bytes=1, width=1, height=1
    )
    stored = runner.run(store.register_image(caller, image))
    request = TaskRequest(image_url=stored.image_url, prompts=("cat",))
    task = runner.run(store.submit(caller, request)).task
    for _ in range(200):
        runner.run(store.submit(caller, request))
    columns = ",".join(_TASK_COLUMNS)

    async def raw_poll() -> None:
        query = {"select": columns, "id": f"eq.{task.task_id}", "limit": "1"}
        (await raw.get("/segmentation_results", params=query)).raise_for_status().json()

    async def raw_list() -> None:
        query = {"select": columns, "order": "created_at.desc,id.desc", "limit": "21", "offset": "0"}
        answer = await raw.get("/segmentation_results", params=query, headers={"Prefer": "count=exact"})
        answer.raise_for_status().json()

    async def raw_submit() -> None:
        body = {"p_image_url": stored.image_url, "p_text_prompts": ["cat"]}
        (await raw.post("/rpc/submit_segmentation", json=body)).raise_for_status().json()

    cases: dict[str, tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = {
        "poll": (raw_poll, lambda: store.get_task(caller, task.task_id)),
        "list": (raw_list, lambda: store.list_tasks(caller)),
        "submit": (raw_submit, lambda: store.submit(caller, request)),
    }
    rows = {}
    for at_once in (1, AT_ONCE):
        for name, (by_httpx, by_us) in cases.items():
            ways = {"httpx": _repeated(runner, by_httpx, at_once), "s3seg": _repeated(runner, by_us, at_once)}
            rows[f"{name}, {CALLS} calls, {at_once} at once"] = in_turns(ways, rounds=9)
    show("PostgREST: our adapter beside raw httpx", rows)
    runner.run(raw.aclose())
    runner.run(store.aclose())


def _account(runner: asyncio.Runner, url: str, caller: Identity) -> None:
    """Print the processor time of this process that each layer adds to one read, one read at a time."""
    rest = Rest(url, SecretStr("sb_publishable_x"), path="")
    store = SupabaseTaskStore(rest, public_base=PUBLIC_BASE)
    image = NewImage(
        object_key=new_image_key(caller.user_id, "image/png"), content_type="image/png", size_bytes=1, width=1, height=1
    )
    stored = runner.run(store.register_image(caller, image))
    task = runner.run(store.submit(caller, TaskRequest(image_url=stored.image_url, prompts=("cat",)))).task
    query = {"select": ",".join(_TASK_COLUMNS), "id": f"eq.{task.task_id}", "limit": "1"}
    headers = {"Authorization": f"Bearer {caller.token}", "apikey": "x"}
    raw = httpx.AsyncClient(base_url=url, headers=headers, trust_env=False)
    connections = Connections(urlsplit(url).port or 0)
    request = request_bytes("GET", f"/segmentation_results?{urlencode(query)}", headers)

    def built() -> Any:
        select = rest.as_user(caller.token).from_("segmentation_results").select(*_TASK_COLUMNS)
        return select.eq("id", task.task_id).limit(1)

    async def by_httpx() -> None:
        (await raw.get("/segmentation_results", params=query)).raise_for_status().json()

    layers: dict[str, Callable[[], Awaitable[object]]] = {
        "the bytes, over a connection that stays open": lambda: connections.send(request),
        "httpx, and reading the JSON": by_httpx,
        "postgrest-py: a client for each call, the query, its checks": lambda: built().execute(),
        "our errors and repeats": lambda: rest.run(built(), safe=True),
        "the task": lambda: store.get_task(caller, task.task_id),
    }
    taken: dict[str, list[float]] = {name: [] for name in layers}
    for turn in range(12):
        for name, call in layers.items():
            begin = time.process_time()
            runner.run(_sequence(call, CALLS))
            if turn:
                taken[name].append((time.process_time() - begin) / CALLS * 1e6)
    print("| layer | adds, µs | up to here |\n|---|---|---|")
    before = [0.0] * len(next(iter(taken.values())))
    for name, now in taken.items():
        added = statistics.median(one - other for one, other in zip(now, before, strict=True))
        print(f"| {name} | {added:.0f} | {statistics.median(now):.0f} |")
        before = now
    connections.close()
    runner.run(raw.aclose())
    runner.run(store.aclose())


async def _sequence(call: Callable[[], Awaitable[object]], times: int) -> None:
    for _ in range(times):
        await call()


def _repeated(runner: asyncio.Runner, call: Callable[[], Awaitable[object]], at_once: int) -> Callable[[], None]:
    async def lane() -> None:
        for _ in range(CALLS // at_once):
            await call()

    async def lanes() -> None:
        await asyncio.gather(*(lane() for _ in range(at_once)))

    return lambda: runner.run(lanes())
