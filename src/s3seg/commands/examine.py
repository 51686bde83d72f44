"""Examine this machine: what s3seg runs on, what is missing, and the command that gets it.

Nothing here raises or imports torch. What torch sees is asked in a process of its own, so that a broken
installation of it (a missing DLL, a driver that crashes) is a finding and not the end of the examination.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3seg import checkpoints
from s3seg.errors import CheckpointError
from s3seg.version import __version__

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What, in a word or two.
        status: "ok"; "note" where something could be better; "problem" where s3seg cannot work.
        value: What was found.
        advice: What to do about it, with the command where there is one; None if nothing.
    """

    topic: str
    status: Status
    value: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Compute:
    """What the network would run on.

    Attributes:
        devices: What there is, best first ("cuda:0 NVIDIA L4, 24 GB", "mps", "cpu").
        device: Which is taken by default.
        dtype: In which precision by default.
        threads: CPU threads.
    """

    devices: tuple[str, ...]
    device: str
    dtype: str
    threads: int


def examine(*, compute: Callable[[], Compute] | None = None) -> list[Finding]:
    """Look at everything s3seg depends on.

    Args:
        compute: Tells what the network would run on, and may raise anything if it cannot; by default torch is
            asked in a new process, which takes some seconds.

    Returns:
        Findings in reading order. No "problem" among them means that s3seg can segment.
    """
    return [
        Finding("s3seg", "ok", __version__),
        _python(),
        Finding("platform", "ok", platform.platform()),
        _library("torch"),
        *_compute(compute or compute_in_subprocess),
        *(_library(name) for name in ("numpy", "safetensors", "tokenizers", "huggingface-hub")),
        *_pillow(),
        *_checkpoints(),
        _disk(),
        _hub_access(),
    ]


def compute_in_subprocess(*, timeout: float = 120.0) -> Compute:
    """Ask torch, in a process of its own, what there is to compute with.

    Raises:
        RuntimeError: torch cannot be imported or used; the message is its last line.
        TimeoutError: No answer within ``timeout`` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise TimeoutError(f"torch did not answer within {timeout:g} seconds") from err
    if done.returncode != 0:
        last_words = done.stderr.strip().splitlines()[-1:] or [f"the process ended with code {done.returncode}"]
        raise RuntimeError(last_words[0])
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    devices = tuple(answer["devices"])
    return Compute(devices, answer["device"], answer["dtype"], answer["threads"])


_ASK_TORCH = """
import json, torch
from s3seg.sam3.predictor import choose_device, choose_dtype
devices = []
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    p = torch.cuda.get_device_properties(i)
    devices.append(f"cuda:{i} {p.name}, {p.total_memory / 1e9:.0f} GB")
if torch.backends.mps.is_available():
    devices.append("mps")
device = choose_device("auto")
dtype = str(choose_dtype("auto", device)).removeprefix("torch.")
threads = torch.get_num_threads()
print(json.dumps({"devices": [*devices, "cpu"], "device": str(device), "dtype": dtype, "threads": threads}))
"""


def _python() -> Finding:
    version = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    return Finding("python", "ok", version)


def _library(name: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", "not installed", f"pip install {name}")


def _compute(compute: Callable[[], Compute]) -> Iterator[Finding]:
    try:
        found = compute()
    except Exception as err:  # whatever breaks is what the user came to learn
        yield Finding(
            "device",
            "problem",
            f"torch cannot be used: {err}",
            "install torch anew; https://pytorch.org/get-started/locally has the command for your machine",
        )
        return
    if found.device.startswith("cpu"):
        yield Finding("device", "note", "cpu", "full SAM 3 takes about half a minute per image on a CPU")
    else:
        yield Finding("device", "ok", f"{found.device} by default, of: {'; '.join(found.devices)}")
    yield Finding("dtype", "ok", f"{found.dtype} by default")
    yield Finding("cpu threads", "ok", f"{found.threads} of {os.cpu_count()} cores")


def _pillow() -> Iterator[Finding]:
    library = _library("pillow")
    yield library
    if library.status != "ok":
        return
    from PIL import features

    wanted = ("jpg", "zlib", "webp", "avif", "jpg_2000", "libtiff", "libjpeg_turbo")
    known = {*features.modules, *features.codecs, *features.features}  # by version; asking for others warns
    here = [name for name in wanted if name in known and features.check(name)]
    lacking = [name for name in wanted if name not in here]
    if lacking:
        yield Finding(
            "image formats",
            "note",
            f"{', '.join(here)}; not {', '.join(lacking)}",
            "pip install --upgrade pillow",
        )
    else:
        yield Finding("image formats", "ok", ", ".join(here))


def _checkpoints() -> Iterator[Finding]:
    for item in checkpoints.inventory():
        topic = f"checkpoint {item.name}"
        if item.checkpoint is not None:
            yield Finding(topic, "ok", f"{item.size_bytes / 1e6:,.1f} MB in {item.checkpoint.folder}")
        elif item.name == "embedded":
            yield Finding(topic, "problem", "its files are missing", "pip install --force-reinstall s3seg")
        else:
            begun = f"not whole, {item.size_bytes / 1e6:,.1f} MB here" if item.size_bytes else "not on this machine"
            yield Finding(topic, "note", begun, f"s3seg models pull {item.name}")
    try:
        yield Finding("checkpoint by default", "ok", checkpoints.resolve().version)
    except CheckpointError as err:
        yield Finding("checkpoint by default", "problem", str(err))


def _disk() -> Finding:
    cache = checkpoints.hub_cache()
    try:
        existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
        free = shutil.disk_usage(existing).free
    except (OSError, StopIteration) as err:
        return Finding("disk", "note", f"{cache} cannot be looked at: {err}", "set HF_HOME to a folder of yours")
    value = f"{free / 1e9:.1f} GB free for {cache}"
    if free < 4e9 and not _full_is_here():
        return Finding("disk", "note", value, "full SAM 3 needs 3.5 GB; set HF_HOME to a folder on a larger disk")
    return Finding("disk", "ok", value)


def _full_is_here() -> bool:
    return any(item.name == "sam3" and item.checkpoint is not None for item in checkpoints.inventory())


def _hub_access() -> Finding:
    """Say whether there is a token and which hub is asked; never the token itself."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    offline = ", offline (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
    variable = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), None)
    file = Path(os.environ.get("HF_TOKEN_PATH") or checkpoints.hub_home() / "token").expanduser()
    if variable:
        return Finding("hugging face", "ok", f"{endpoint}{offline}, token from {variable}")
    if file.is_file():
        return Finding("hugging face", "ok", f"{endpoint}{offline}, token from {file}")
    advice = None if _full_is_here() else "to pull full SAM 3 log in with: hf auth login"
    return Finding("hugging face", "note" if advice else "ok", f"{endpoint}{offline}, no token", advice)
