"""Uploads of ordinary, large and slow pictures: decoded in threads of the edge, and in processes (Linux).

Two edges run side by side, ``S3SEG_DECODE_PROCESSES=0`` and the default, and get the same requests in turns.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.edge import _multipart, _photo
from benchmarks.http_load import EDGE, Server, free_port, load, request_bytes, serving
from s3seg.app import local_keys
from s3seg.app.settings import Settings

_ROUNDS = 5
_DEADLINE_S = 20


def main() -> None:
    """Measure latency, throughput, memory and time."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        edges = {
            "threads": stack.enter_context(_edge(Path(folder, "threads"), processes=0)),
            "processes": stack.enter_context(_edge(Path(folder, "processes"), processes=4)),
        }
        photo = _photo(2.0)
        _compare(edges, photo, connections=1)
        _compare(edges, photo, connections=4)
        _memory(edges, photo)


@contextlib.contextmanager
def _edge(data: Path, *, processes: int):
    data.mkdir()
    port = free_port()
    environment = {
        "S3SEG_DATA_DIR": str(data),
        "S3SEG_RATE_LIMITS": "off",
        "S3SEG_DECODE_PROCESSES": str(processes),
        "S3SEG_DECODE_DEADLINE_S": str(_DEADLINE_S),
    }
    keys = local_keys(Settings(data_dir=data, _env_file=None))  # pyright: ignore[reportCallIssue]
    token = keys.mint("ann")
    with serving(EDGE, "edge", "--port", str(port), path="/ready", environment=environment, port=port) as server:
        yield server, {"Authorization": f"Bearer {token}"}


def _compare(edges: dict[str, tuple[Server, dict[str, str]]], photo: bytes, *, connections: int) -> None:
    body, content_type = _multipart(photo)
    runs = {name: [] for name in edges}
    for turn in range(_ROUNDS + 1):
        for name, (server, auth) in edges.items():
            request = request_bytes("POST", "/api/v1/upload", auth | content_type, body)
            served = load(server, request, status=200, connections=connections, seconds=2)
            if turn:  # the first warms up
                runs[name].append(served)
    title = f"upload of a JPEG of 2 megapixels, {len(body) / 2**20:.2f} MB, {connections} connections of one user"
    table = Table("", "per second", "p50, ms", "p99, ms", title=title, title_justify="left")
    for name, served in runs.items():
        numbers = (
            statistics.median(getattr(one, field) for one in served) for field in ("per_second", "p50_ms", "p99_ms")
        )
        table.add_row(name, *(f"{number:.1f}" for number in numbers))
    Console(width=120).print(table)


def _memory(edges: dict[str, tuple[Server, dict[str, str]]], photo: bytes) -> None:
    table = Table(
        *("picture", "decoded in", "status", "seconds", "peak of the edge, MB", "peak of a process, MB", "kept, MB"),
        title="memory of the edge and its processes; kept: all of them, less before the upload",
        title_justify="left",
    )
    for picture, content in _pictures(photo).items():
        for name, (server, auth) in edges.items():
            if picture.startswith("slow JPEG") and name == "threads":
                continue  # for many minutes
            url = f"http://127.0.0.1:{server.port}/api/v1/upload"
            httpx.post(url, files={"file": photo}, headers=auth, timeout=600)  # what is imported is imported
            before = sum(_status(pid, "VmRSS") for pid in _family(server.pid))
            for pid in _family(server.pid):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # begin the peak anew
            start = time.perf_counter()
            answer = httpx.post(url, files={"file": content}, headers=auth, timeout=600)
            took = time.perf_counter() - start
            family = _family(server.pid)
            peaks = [_status(pid, "VmHWM") for pid in family]
            kept = sum(_status(pid, "VmRSS") for pid in family) - before
            child = f"{max(peaks[1:]):.0f}" if peaks[1:] else ""
            table.add_row(
                f"{picture}, {len(content) / 1e6:.2g} MB", name, str(answer.status_code), f"{took:.1f}",
                f"{peaks[0]:.0f}", child, f"{kept:.0f}",
            )  # fmt: skip
    Console(width=160).print(table)


def _pictures(photo: bytes) -> dict[str, bytes]:
    from tests.helpers.attacks import deep_png, large_webp, many_chunks, slow_jpeg, slow_png

    progressive = io.BytesIO()
    Image.effect_noise((7000, 7000), 60).convert("RGB").save(progressive, "JPEG", quality=20, progressive=True)
    return {
        "JPEG, 2 megapixels": photo,
        "progressive JPEG, 49 megapixels": progressive.getvalue(),
        "PNG, 16 bits with alpha, 49 megapixels": deep_png(),
        "interlaced PNG, 16 bits with alpha, 49 megapixels": slow_png(),
        "WebP, 49 megapixels": large_webp(),
        "PNG of 700,000 chunks": many_chunks(),
        "slow JPEG, 49 megapixels": slow_jpeg(),
    }


def _family(pid: int) -> list[int]:
    """The process, and its children."""
    children = [
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    ]
    return [pid, *children]


def _status(pid: int, field: str) -> float:
    """A number of megabytes of /proc/PID/status; 0 if the process has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
