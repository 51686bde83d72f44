"""The messages that the page on troubleshooting quotes are those that s3seg gives."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import re
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import s3seg
from s3seg.app import Parts, Settings, local_keys
from s3seg.app.misspelt import warn_of_misspelt
from s3seg.client import RetryPolicy
from s3seg.sam3.predictor import _stage
from s3seg.tasks.health import MismatchError
from s3seg.tasks.limits import Tier
from tests.commands.running import command
from tests.helpers.clickable import write_checkpoint_without_clicks
from tests.helpers.running_edge import running

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "troubleshooting.md"
PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
QUOTED = re.findall(r'^### "(.+)"$', PAGE.read_text(encoding="utf-8"), re.MULTILINE)
pytestmark = pytest.mark.anyio


@cache
def segmenter() -> s3seg.Segmenter:
    return s3seg.Segmenter("embedded")


def park() -> np.ndarray:
    return np.asarray(Image.open(PICTURES / "park.png").convert("RGB"))


def raised(action: Callable[[], object]) -> str:
    with pytest.raises(Exception) as error:
        action()
    return str(error.value)


def printed(*arguments: object) -> str:
    done = command(*arguments)
    assert done.exit_code != 0
    return done.output


def segment(source: object, prompt: str = "tree") -> s3seg.Segmentation:
    return segmenter().segment(source, prompt)


def hint(source: object, prompt: str = "tree") -> str:
    return str(segment(source, prompt).hint)


def file(folder: Path, content: bytes) -> Path:
    (folder / "picture.png").write_bytes(content)
    return folder / "picture.png"


def in_a_fork() -> str:
    segmenter()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(raised(lambda: segment(PICTURES / "park.png"))))
    child.start()
    try:
        assert ours.poll(60)
        return ours.recv()
    finally:
        child.join(60)


def without_memory() -> None:
    with _stage("image"):
        raise torch.OutOfMemoryError("no memory is left")


def headless(folder: Path) -> str:
    checkpoint = write_checkpoint_without_clicks(folder / "headless")
    return raised(lambda: s3seg.Segmenter(checkpoint, device="cpu").click(park(), [(3, 3)]))


def on_a_taken_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return printed("serve", "edge", "--port", taken.getsockname()[1])


def reach(url: str) -> object:
    with s3seg.Client(url, token="abc", retry_policy=RetryPolicy(retries=0)) as client:
        return client.me()


LOCAL: dict[str, Callable[[Path], str]] = {
    "this looks like a photograph, but the ... checkpoint knows drawings only": lambda _: hint(data.astronaut()),
    "the ... checkpoint does not know '...'": lambda _: hint(park(), "aquarium"),
    "'...' is searched for as one thing": lambda _: hint(park(), "dog, cat"),
    "the red and blue of this array look exchanged": lambda _: hint(np.ascontiguousarray(park()[:, :, ::-1])),
    "the checkpoint '...' is not on this machine": lambda _: raised(lambda: s3seg.Segmenter("sam3")),
    "the device '...' cannot be used": lambda _: raised(lambda: s3seg.Segmenter("embedded", device="cuda:77")),
    "out of memory in the ... part of the network": lambda _: raised(without_memory),
    "the ... checkpoint has no head for clicks": lambda folder: headless(folder),
    "was made in process ... and cannot be used in process ...": lambda _: in_a_fork(),
    "cannot pickle or copy a Segmenter": lambda _: raised(lambda: pickle.dumps(segmenter())),
    "not an image that can be read: it looks like an HTML page": lambda folder: raised(
        lambda: segment(file(folder, b"<html>Please log in</html>"))
    ),
    "the file is truncated: its end is missing": lambda folder: raised(
        lambda: segment(file(folder, (PICTURES / "park.png").read_bytes()[:9000]))
    ),
    "floats must be in 0..1": lambda _: raised(lambda: segment(park() / 64 - 2)),
    "no prompt: the last argument must be what to look for": lambda _: printed("segment", PICTURES / "park.png"),
    "the prompt has ... tokens, but this model accepts at most ...": lambda _: raised(
        lambda: segment(park(), "a tree and " * 40)
    ),
    "there is no access token": lambda _: raised(lambda: s3seg.Client("http://127.0.0.1:9")),
    "cannot reach ...": lambda _: raised(lambda: reach("http://127.0.0.1:9")),
    "this service needs a key": lambda _: printed("serve", "gpu"),
    "cannot listen on ...: Address already in use": lambda _: on_a_taken_port(),
    "unknown adapter ...: choose one of ...": lambda folder: raised(
        lambda: Parts(Settings(_env_file=None, data_dir=folder, object_store="r3")).objects
    ),
}


def assert_says(message: str, quoted: str) -> None:
    pattern = ".+".join(re.escape(part) for part in quoted.split("..."))
    pattern = pattern.replace(r"0.+1", r"0\.\.1")  # which is a range
    assert re.search(pattern, message), f"{quoted!r} is not in {message!r}"


def test_every_quoted_message_is_checked():
    assert sorted(QUOTED) == sorted([*LOCAL, *ON_SERVICES, *IN_LOGS, OTHER_ADDRESS])


@pytest.mark.parametrize("quoted", LOCAL)
def test_a_program_gives_the_message(quoted, tmp_path, monkeypatch, own_hub_cache):
    for name in ("S3SEG_URL", "S3SEG_TOKEN", "API_SECRET_KEY", "S3SEG_API_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("S3SEG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    assert_says(LOCAL[quoted](tmp_path), quoted)


async def _expired(service) -> str:
    user = await service.user()
    user.token = local_keys(service.settings).mint("ann", ttl_s=-3600)
    return (await user("GET", "/api/v1/me")).text


async def _poor(service) -> str:
    return (await (await service.user(credits=0)).segment()).text


async def _impatient(service) -> str:
    user = await service.user(tier=Tier.FREE)
    for _ in range(200):
        if (answer := await user("GET", "/api/v1/results")).status_code == 429:
            return answer.text
    raise AssertionError("no limit")


async def _large(service) -> str:
    return (await (await service.user()).upload(b"\x89PNG\r\n\x1a\n" + bytes(11 * 2**20))).text


async def _foreign(service) -> str:
    return (await (await service.user()).segment(image_url="https://example.org/cat.png")).text


ON_SERVICES = {
    "the token has expired": _expired,
    "the task costs ... credits, the account has ...": _poor,
    "the limit of ... requests per minute is reached": _impatient,
    "the file is larger than ... bytes (10 MB)": _large,
    "image_url is not one of your uploads": _foreign,
}


@pytest.mark.parametrize("quoted", ON_SERVICES)
async def test_a_service_answers_the_message(quoted, tmp_path):
    async with running(tmp_path, rate_limits="contract", rate_limiter="memory") as service:
        assert_says(await ON_SERVICES[quoted](service), quoted)


def _short_key(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    return raised(lambda: Settings(_env_file=None, data_dir=folder, api_secret_key="change-me"))


def _misspelt(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.WARNING):
        warn_of_misspelt(["S3SEG_DATA_DIRR"])
    return caplog.text


IN_LOGS = {
    "is shorter than 16 bytes, so it could be guessed": _short_key,
    "is not a setting and has no effect; did you mean ...?": _misspelt,
}
OTHER_ADDRESS = "set it to the same value in all services"


@pytest.mark.parametrize("quoted", IN_LOGS)
def test_a_service_says_the_message_as_it_starts(quoted, tmp_path, caplog):
    assert_says(IN_LOGS[quoted](tmp_path, caplog), quoted)


async def test_a_service_with_another_public_base_url_says_so(tmp_path):
    async with running(tmp_path, public_base_url="https://a.example/files") as service:
        await service.parts.announce()
        other = Parts(Settings(_env_file=None, data_dir=tmp_path, public_base_url="https://b.example/files"))
        with pytest.raises(MismatchError) as error:
            await other.task_queue.check()
        await other.aclose()
    assert_says(str(error.value), OTHER_ADDRESS)
