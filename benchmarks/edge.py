"""The edge beside a bare Starlette route that returns constant JSON, under the same server, in turns.

Load and server share the machine, so the numbers are lower than a server's own; the ratios are fair.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sqlite3
import statistics
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import edge_layers
from benchmarks.http_load import BARE, EDGE, Served, Server, free_port, load, request_bytes, serving
from s3seg.adapters.local_auth import user_id_of
from s3seg.app import Parts, local_keys
from s3seg.app.settings import Settings

ROWS = (1_000, 100_000, 1_000_000)
_ROUNDS = 5


def main(arguments: Sequence[str] = ()) -> int:
    """Measure polling, listing, submits, uploads, memory and start; with ``--account``, polling by layers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks edge", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--account", action="store_true", help="what each layer adds to a poll")
    if parser.parse_args(arguments).account:
        edge_layers.show(edge_layers.measure())
    else:
        _measure()
    return 0


def _measure() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        kept = Path(folder, "kept")
        kept.mkdir()
        edge_port, bare_port = free_port(), free_port()
        url = f"http://127.0.0.1:{edge_port}"
        environment = {"S3SEG_DATA_DIR": str(data), "S3SEG_RATE_LIMITS": "off", "S3SEG_WELCOME_CREDITS": "1000000000"}
        settings = Settings(
            data_dir=data, rate_limits="off", welcome_credits=1_000_000_000, public_base_url=f"{url}/files"
        )
        names = {rows: f"owner of {rows}" for rows in ROWS}
        first_task = {rows: fill(settings, names[rows], rows) for rows in ROWS}
        token = {rows: local_keys(settings).mint(names[rows]) for rows in ROWS}
        auth = {rows: {"Authorization": f"Bearer {token[rows]}"} for rows in ROWS}
        few = ROWS[0]
        image_url = f"{url}/files/users/{user_id_of(names[few])}/images/{'0' * 32}.png"
        with (
            serving(BARE, str(bare_port), str(kept), path="/constant", environment={}, port=bare_port) as bare,
            serving(
                EDGE, "edge", "--port", str(edge_port), path="/ready", environment=environment, port=edge_port
            ) as edge,
        ):
            print(f"edge process: {edge.resident_mb:.0f} MB resident, first answer after {edge.start_s:.2f} s")
            constant = ("bare Starlette, constant", bare, request_bytes("GET", "/constant", {}), 200)
            poll = request_bytes("GET", f"/api/v1/tasks/{first_task[few]}", auth[few])
            order = json.dumps({"image_url": image_url, "text_prompt": "cat"}).encode()
            json_type = {"Content-Type": "application/json"}
            submit = request_bytes("POST", "/api/v1/segment", auth[few] | json_type, order)
            _compare(
                "16 connections, a request at a time each",
                [
                    constant,
                    ("poll a task", edge, poll, 200),
                    *(
                        (f"list, {rows} rows", edge, request_bytes("GET", "/api/v1/results", auth[rows]), 200)
                        for rows in ROWS
                    ),
                    ("submit", edge, submit, 202),
                ],
            )
            for megapixels in (0.3, 2.0):
                body, content_type = _multipart(_photo(megapixels))
                _compare(
                    f"upload of a JPEG, {megapixels} megapixels, {len(body) / 2**20:.2f} MB, 4 connections",
                    [
                        (
                            "bare Starlette, write it",
                            bare,
                            request_bytes("POST", "/upload", content_type, body),
                            200,
                        ),
                        (
                            "edge: decode, sync, register",
                            edge,
                            request_bytes("POST", "/api/v1/upload", auth[few] | content_type, body),
                            200,
                        ),
                    ],
                    connections=4,
                )


def _compare(title: str, ways: list[tuple[str, Server, bytes, int]], *, connections: int = 16) -> None:
    """Load each way in turns, and print medians over the rounds."""
    seen: dict[str, list[Served]] = {name: [] for name, *_ in ways}
    for turn in range(_ROUNDS + 1):
        for name, server, request, status in ways:
            served = load(server, request, status=status, connections=connections, seconds=1.5)
            if turn:  # the first warms up
                seen[name].append(served)
    table = Table(title=title, title_justify="left")
    for column in ("", "per second", "p50, ms", "p99, ms", "server CPU, µs", "rate / first", "CPU / first"):
        table.add_column(column, justify="right" if column else "left")
    first = seen[ways[0][0]]
    for name, runs in seen.items():
        turns = list(zip(runs, first, strict=True))
        table.add_row(
            name,
            f"{statistics.median(run.per_second for run in runs):.0f}",
            f"{statistics.median(run.p50_ms for run in runs):.1f}",
            f"{statistics.median(run.p99_ms for run in runs):.1f}",
            f"{statistics.median(run.cpu_us for run in runs):.0f}",
            f"{statistics.median(one.per_second / base.per_second for one, base in turns):.2f}",
            f"{statistics.median(one.cpu_us / base.cpu_us for one, base in turns):.2f}",
        )
    Console(width=120).print(table)


async def _make_account(settings: Settings, user: str) -> None:
    parts = Parts(settings)
    await parts.accounts.ensure(user)
    await parts.aclose()


def fill(settings: Settings, name: str, rows: int) -> str:
    """Give a user an image and so many tasks that are done; gives one's id."""
    user = user_id_of(name)
    asyncio.run(_make_account(settings, user))
    database = sqlite3.connect(settings.data_dir / "tasks.sqlite3")
    url = f"{settings.public_base_url}/users/{user}/images/{'0' * 32}.png"
    image = (str(uuid.uuid4()), user, f"users/{user}/images/{'0' * 32}.png", url)
    first = str(uuid.uuid4())
    with database:
        database.execute("INSERT INTO images VALUES (?, ?, NULL, ?, ?, 'image/png', 9, 4, 3, 0, NULL)", image)
        database.executemany(
            "INSERT INTO tasks (task_id, user_id, image_id, source_image_url, prompts, status, mask_image_url, labels, "
            "fingerprint, created_at, updated_at, deadline) "
            "VALUES (?, ?, ?, ?, '[\"cat\"]', 'done', ?, '[\"cat\"]', '', ?, ?, 0)",
            (
                (first if n == 0 else str(uuid.uuid4()), user, image[0], url, f"{url}.mask", n * 1000, n * 1000)
                for n in range(rows)
            ),
        )
    database.close()
    return first


def _photo(megapixels: float) -> bytes:
    """A JPEG as a camera makes it: smooth colours and some noise."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = height * 4 // 3
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.int16) + rng.normal(0, 6, (height, width, 1)).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _multipart(data: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + data + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


if __name__ == "__main__":
    main()
