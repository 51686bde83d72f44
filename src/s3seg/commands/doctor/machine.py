"""Checks of this machine: what s3seg would run on, what is missing, and the command that installs it.

The checks never raise and never import torch. A subprocess queries torch, so that a broken installation (a missing
DLL, a driver that crashes) becomes a finding and the other checks still run.
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

from s3seg import __version__, checkpoints
from s3seg.errors import CheckpointError

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        topic: What was checked, in a word or two.
        status: "ok"; "note" if something could be better; "problem" if s3seg cannot work.
        value: What was found.
        advice: What to do about it, as a command if there is one; None if nothing is to be done.
    """

    topic: str
    status: Status
    value: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Compute:
    """The hardware and precision that the network would use.

    Attributes:
        devices: The available devices, best first ("cuda:0 NVIDIA L4, 24 GB", "mps", "cpu").
        device: The default device.
        dtype: The default precision.
        threads: CPU threads.
    """

    devices: tuple[str, ...]
    device: str
    dtype: str
    threads: int


def examine(*, compute: Callable[[], Compute] | None = None) -> list[Finding]:
    """Check everything that s3seg depends on.

    Args:
        compute: Returns what the network would run on, or raises any error. By default a subprocess queries
            torch, which takes some seconds.

    Returns:
        Findings, in the order to show them. If none is a "problem", s3seg can segment.
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
    """Query torch for devices and precision, in a subprocess.

    Raises:
        RuntimeError: torch cannot be imported or used; the message is the last line of its output.
        TimeoutError: torch did not answer within ``timeout`` seconds.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own text
            [sys.executable, "-c", _QUERY_TORCH], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise TimeoutError(f"torch did not answer within {timeout:g} seconds") from err
    if done.returncode != 0:
        last_line = done.stderr.strip().splitlines()[-1:] or [f"the process exited with code {done.returncode}"]
        raise RuntimeError(last_line[0])
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    devices = tuple(answer["devices"])
    return Compute(devices, answer["device"], answer["dtype"], answer["threads"])


_QUERY_TORCH = """
import json, torch
from s3seg.sam3.choices import choose_device, choose_dtype
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
    except Exception as err:  # any failure is a finding, and must not stop the other checks
        yield Finding(
            "device",
            "problem",
            f"torch cannot be used: {err}",
            "reinstall torch with the command for your machine: https://pytorch.org/get-started/locally",
        )
        return
    if found.device.startswith("cpu"):
        seconds = 6 if found.dtype == "bfloat16" else 20  # measured on two cores: docs/explanation/performance.md
        yield Finding("device", "note", "cpu", f"SAM 3 for photographs takes about {seconds} s per image on two cores")
    else:
        yield Finding("device", "ok", f"{found.device} by default; available: {'; '.join(found.devices)}")
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
    missing = [name for name in wanted if name not in here]
    if missing:
        yield Finding(
            "image formats",
            "note",
            f"{', '.join(here)}; not {', '.join(missing)}",
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
            state = f"incomplete, {item.size_bytes / 1e6:,.1f} MB" if item.size_bytes else "not on this machine"
            yield Finding(topic, "note", state, f"s3seg models pull {item.name}")
    try:
        yield Finding("default checkpoint", "ok", checkpoints.resolve().version)
    except CheckpointError as err:
        yield Finding("default checkpoint", "problem", str(err))


def _disk() -> Finding:
    cache = checkpoints.hub_cache()
    try:
        existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
        free = shutil.disk_usage(existing).free
    except (OSError, StopIteration) as err:
        return Finding("disk", "note", f"cannot read {cache}: {err}", "set HF_HOME to a folder that you can write to")
    value = f"{free / 1e9:.1f} GB free for {cache}"
    if free < 4e9 and not _photographs_are_here():
        return Finding("disk", "note", value, "full SAM 3 needs 3.5 GB; set HF_HOME to a folder with more space")
    return Finding("disk", "ok", value)


def _photographs_are_here() -> bool:
    """Whether a checkpoint other than the embedded one is on this machine."""
    return any(item.name != "embedded" and item.checkpoint is not None for item in checkpoints.inventory())


def _hub_access() -> Finding:
    """Report the hub's address and whether there is a token; never the token itself."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    offline = ", offline (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
    variable = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), None)
    file = Path(os.environ.get("HF_TOKEN_PATH") or checkpoints.hub_home() / "token").expanduser()
    if variable:
        return Finding("hugging face", "ok", f"{endpoint}{offline}, token from {variable}")
    if file.is_file():
        return Finding("hugging face", "ok", f"{endpoint}{offline}, token from {file}")
    advice = None if _photographs_are_here() else "no account is needed for: s3seg models pull litetext"
    return Finding("hugging face", "note" if advice else "ok", f"{endpoint}{offline}, no token", advice)
