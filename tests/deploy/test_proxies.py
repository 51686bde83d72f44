"""The example configurations of reverse proxies, in front of a running edge; skipped where the proxy is absent."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s3seg.adapters.local_auth import LocalKeys
from tests.helpers.pictures import encoded
from tests.helpers.processes import edge_process, free_port

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "deploy" / "proxy"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    data = tmp_path_factory.mktemp("edge")
    with edge_process(data, S3SEG_DECODE_PROCESSES="0") as (_, url):
        yield url.removeprefix("http://"), data


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3seg.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "pem", folder / "key"


def nginx(folder: Path, port: int, upstream: str, certificate: tuple[Path, Path]) -> list[str]:
    server = (EXAMPLES / "nginx.conf").read_text()
    server = server.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("127.0.0.1:8000", upstream)
    server = server.replace("/etc/ssl/s3seg.example.pem", str(certificate[0]))
    server = server.replace("/etc/ssl/s3seg.example.key", str(certificate[1])).replace("s3seg.example;", "localhost;")
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}{server}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def caddy(folder: Path, port: int, upstream: str, certificate: tuple[Path, Path]) -> list[str]:
    text = (EXAMPLES / "Caddyfile").read_text().replace("127.0.0.1:8000", upstream)
    text = text.replace("{\n\tservers", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers", 1)
    text = text.replace(
        "s3seg.example {", f"https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate[0]} {certificate[1]}", 1
    )
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"], scope="module")
def proxy(
    request: pytest.FixtureRequest,
    edge: tuple[str, Path],
    certificate: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    configure: Callable[..., list[str]] = request.param
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    command = configure(folder, port, edge[0], certificate)
    if shutil.which(command[0], path=PATH) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment = {"PATH": PATH, "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    headers = {"Host": "localhost"} if configure is nginx else {}  # the name that the server answers to
    http = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, headers=headers)
    try:
        for _ in range(200):
            try:
                http.get("/health")
                break
            except httpx.TransportError:
                assert running.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        yield http
    finally:
        http.close()
        running.kill()
        running.wait(30)


@pytest.fixture
def ann(edge: tuple[str, Path]) -> dict[str, str]:
    return {"Authorization": f"Bearer {LocalKeys(edge[1] / 'auth' / 'signing-key.pem').mint('ann')}"}


def upload(proxy: httpx.Client, ann: dict[str, str], body: bytes) -> httpx.Response:
    return proxy.post("/api/v1/upload", headers=ann, files={"file": ("a.png", body, "image/png")})


def test_the_api_is_reached_and_operators_pages_are_not(proxy: httpx.Client, ann: dict[str, str]) -> None:
    assert proxy.get("/health").status_code == 200
    assert proxy.get("/api/v1/me", headers=ann).json()["data"]["tier"] == "free"
    assert proxy.get("/metrics").status_code == 404
    assert proxy.get("/ready").status_code == 404


def test_the_largest_upload_passes_and_larger_ones_are_refused(proxy: httpx.Client, ann: dict[str, str]) -> None:
    picture = encoded() + bytes(10 * 2**20 - len(encoded()))  # what follows a PNG's end is ignored
    assert upload(proxy, ann, picture).status_code == 200
    assert upload(proxy, ann, picture + bytes(2 * 2**20)).status_code == 413


def test_large_heads_are_refused(proxy: httpx.Client) -> None:
    try:
        assert proxy.get("/health", headers={"X-Large": "x" * 70_000}).status_code in {400, 431, 494}
    except httpx.RemoteProtocolError:
        return  # closed at once


def test_the_log_has_the_clients_address_not_what_the_client_claims(
    proxy: httpx.Client, edge: tuple[str, Path], ann: dict[str, str]
) -> None:
    answer = proxy.get("/api/v1/me", headers={**ann, "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Prefix": "/evil"})
    for _ in range(100):
        log = [json.loads(line) for line in (edge[1] / "edge.log").read_text().splitlines() if line.startswith("{")]
        if lines := [line for line in log if line.get("request_id") == answer.headers["x-request-id"]]:
            break
        time.sleep(0.05)
    (line,) = lines
    assert "203.0.113.9" not in json.dumps(line)
    assert "127.0.0.1" in json.dumps(line)


def test_events_are_not_held_back(proxy: httpx.Client, ann: dict[str, str]) -> None:
    image = upload(proxy, ann, encoded()).json()["data"]["image_url"]
    task = proxy.post("/api/v1/segment", headers=ann, json={"image_url": image, "text_prompt": "cat"}).json()["data"]
    with proxy.stream("GET", f"/api/v1/tasks/{task['task_id']}/events", headers=ann, timeout=10) as events:
        first = next(events.iter_lines())  # while the task waits for ever
    assert first.startswith(("event:", "data:", "id:", ":", "retry:"))
