"""Two clients attack an edge, one attack after the other; a third uses it, and its waits are measured.

Each attack runs from two processes, each with a token of its own (or none), for some seconds. The third client
asks for its account, polls a task, submits one and uploads a picture, over and over: how long it waits for an
answer or a 503 is the result. Clients and service share the machine, so the waits contain the clients' own work.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.table import Table
from tests.helpers.attacks import deep_png, slow_jpeg

from benchmarks.edge import _multipart, _photo
from benchmarks.http_load import EDGE, free_port, serving
from s3seg.app import local_keys
from s3seg.app.settings import Settings

_SECONDS = 10.0
_SOCKETS = 200


def main() -> None:
    """Measure the third client's waits under each attack."""
    with tempfile.TemporaryDirectory() as folder, _edge(Path(folder)) as (url, tokens):
        photo = _photo(2.0)
        rows = {"nobody attacks": _measured(url, tokens[2], photo, attack=None, tokens=tokens)}
        for name, attack in ATTACKS.items():
            rows[name] = _measured(url, tokens[2], photo, attack=attack, tokens=tokens)
    table = Table(title=f"Milliseconds that a third client waits for an answer or a 503, {_SECONDS:.0f} s each")
    for column in ("two clients send", "requests", "median", "longest", "longest: which", "answers"):
        table.add_column(column)
    for name, waits in rows.items():
        longest = max(waits, key=lambda wait: wait[1])
        codes = sorted({str(status) for *_, status in waits})
        median = statistics.median(milliseconds for _, milliseconds, _ in waits)
        table.add_row(name, str(len(waits)), f"{median:.0f}", f"{longest[1]:.0f}", longest[0], " ".join(codes))
    Console(width=140).print(table)


@contextlib.contextmanager
def _edge(data: Path) -> Iterator[tuple[str, list[str]]]:
    port = free_port()
    environment = {"S3SEG_DATA_DIR": str(data), "S3SEG_RATE_LIMITS": "off", "S3SEG_WELCOME_CREDITS": "1000000"}
    keys = local_keys(Settings(data_dir=data, _env_file=None))  # pyright: ignore[reportCallIssue]
    tokens = [keys.mint(user) for user in ("mallory", "trudy", "ann")]
    with serving(EDGE, "edge", "--port", str(port), path="/ready", environment=environment, port=port):
        yield f"http://127.0.0.1:{port}", tokens


def _measured(
    url: str, token: str, photo: bytes, *, attack: Callable[[str, str, float], None] | None, tokens: list[str]
) -> list[tuple[str, float, int | str]]:
    spawn = multiprocessing.get_context("spawn")
    attackers = []
    if attack:
        arguments = [(attack.__name__, url, hostile, _SECONDS + 2) for hostile in tokens[:2]]
        attackers = [spawn.Process(target=_attacker, args=args, daemon=True) for args in arguments]
    for process in attackers:
        process.start()
    time.sleep(1.5 if attackers else 0.0)  # until the attack has begun
    try:
        return _waits(url, token, photo)
    finally:
        for process in attackers:
            process.kill()
            process.join()


def _waits(url: str, token: str, photo: bytes) -> list[tuple[str, float, int | str]]:
    body, form = _multipart(photo)
    waits: list[tuple[str, float, int | str]] = []
    end = time.monotonic() + _SECONDS
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:

        def ask(name: str, method: str, path: str, **options: object) -> httpx.Response | None:
            start = time.perf_counter()
            try:
                response = client.request(method, path, **options)  # type: ignore[arg-type]
                status: int | str = response.status_code
            except httpx.TransportError as err:
                response, status = None, type(err).__name__
            waits.append((name, (time.perf_counter() - start) * 1000, status))
            return response

        image_url, task_id = "", ""
        while time.monotonic() < end:
            ask("account", "GET", "/api/v1/me")
            uploaded = ask("upload", "POST", "/api/v1/upload", content=body, headers=form)
            if uploaded is not None and uploaded.status_code == 200:
                image_url = uploaded.json()["data"]["image_url"]
            if image_url:
                submitted = ask("submit", "POST", "/api/v1/segment", json={"image_url": image_url, "text_prompt": "x"})
                if submitted is not None and submitted.status_code == 202:
                    task_id = submitted.json()["data"]["task_id"]
            if task_id:
                ask("poll", "GET", f"/api/v1/tasks/{task_id}")
    return waits


def _attacker(name: str, url: str, token: str, seconds: float) -> None:
    attack = next(attack for attack in ATTACKS.values() if attack.__name__ == name)
    with contextlib.suppress(KeyboardInterrupt):
        attack(url, token, seconds)


# ---- attacks; each runs for so many seconds ----


def slow_pictures(url: str, token: str, seconds: float) -> None:
    """Upload pictures that decode for minutes, four at a time."""
    _upload_in_threads(url, token, seconds, slow_jpeg())


def deep_pictures(url: str, token: str, seconds: float) -> None:
    """Upload pictures of 49 megapixels with 16 bits and alpha, four at a time."""
    _upload_in_threads(url, token, seconds, deep_png())


def endless_heads(url: str, token: str, seconds: float) -> None:
    """Send header fields without end, on many connections."""
    _on_sockets(url, seconds, b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-Field: " + b"y" * 1000 + b"\r\n")


def idle_connections(url: str, token: str, seconds: float) -> None:
    """Open connections and send nothing more than a byte now and then."""
    _on_sockets(url, seconds, b"G", b"")


def slow_bodies(url: str, token: str, seconds: float) -> None:
    """Announce uploads and send them a few bytes at a time."""
    head = (
        f"POST /api/v1/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    _on_sockets(url, seconds, head.encode(), b"\x89PNG")


def unread_answers(url: str, token: str, seconds: float) -> None:
    """Ask for the largest document again and again, without reading an answer."""
    _on_sockets(url, seconds, b"", b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)


def waiting_requests(url: str, token: str, seconds: float) -> None:
    """Wait for a task that nobody processes, on many connections."""
    body, form = _multipart(_photo(0.1))
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        image = client.post("/api/v1/upload", content=body, headers=form).json()["data"]
        request = {"image_url": image["image_url"], "text_prompt": "x"}
        task_id = client.post("/api/v1/segment", json=request).json()["data"]["task_id"]
    head = f"GET /api/v1/tasks/{task_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    _on_sockets(url, seconds, head.encode(), b"")


ATTACKS: dict[str, Callable[[str, str, float], None]] = {
    "pictures that decode for minutes": slow_pictures,
    "pictures of 16 bits with alpha": deep_pictures,
    "header fields without end": endless_heads,
    "idle connections": idle_connections,
    "slow bodies": slow_bodies,
    "requests whose answers nobody reads": unread_answers,
    "requests that wait for tasks": waiting_requests,
}


def _upload_in_threads(url: str, token: str, seconds: float, picture: bytes) -> None:
    from concurrent.futures import ThreadPoolExecutor

    body, form = _multipart(picture)
    end = time.monotonic() + seconds

    def upload() -> None:
        headers = {"Authorization": f"Bearer {token}", **form}
        with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
            while time.monotonic() < end:
                with contextlib.suppress(httpx.TransportError):
                    client.post("/api/v1/upload", content=body)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(upload)


def _on_sockets(url: str, seconds: float, head: bytes, again: bytes) -> None:
    """Keep sockets open, send ``head`` on each, then ``again`` every tenth of a second; open lost ones anew."""
    address = (urlsplit(url).hostname, urlsplit(url).port)
    end = time.monotonic() + seconds
    open_sockets: list[socket.socket] = []
    while time.monotonic() < end:
        while len(open_sockets) < _SOCKETS:
            try:
                connection = socket.create_connection(address, timeout=5)
                connection.setblocking(False)
                connection.send(head)
            except OSError:
                break
            open_sockets.append(connection)
        for connection in list(open_sockets):
            try:
                if again:
                    connection.send(again)
                elif connection.recv(65536) == b"":
                    raise ConnectionResetError
            except BlockingIOError:
                continue
            except OSError:
                connection.close()
                open_sockets.remove(connection)
        time.sleep(0.1)
    for connection in open_sockets:
        connection.close()
