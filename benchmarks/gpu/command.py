"""The command ``python -m benchmarks gpu``: each part in a process of its own, which is ended when its time is up."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.report import print_part

SECONDS = {"equal": 85, "alone": 180, "serving": 180, "again": 95}
_ALL = ("equal", "alone", "serving")  # ``again`` is a part of ``alone``
_QUICK_SECONDS = 600  # a quick run takes a few seconds, or minutes on a machine that does much else
_PLANNED_S = 10  # a part plans to end this long before its time is up
_KILLED_S = 4  # and is told to end this long before


def main(arguments: Sequence[str]) -> int:
    """Run the parts that are named, or all.

    Returns:
        0; 1 if a comparison failed, a measurement broke or a part did not end in time; 2 if there is no CUDA card.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(SECONDS)}; {', '.join(_ALL)} if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks on the CPU: tries the commands themselves")
    parser.add_argument("--out", type=Path, help="folder for JSON and plots (default: $OUT, or out/gpu)")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(SECONDS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; choose from {', '.join(SECONDS)}")
    if not asked.quick and not _has_cuda():
        print("No CUDA card was found, so nothing was measured. --quick tries the commands on the CPU.")
        return 2
    out: Path = asked.out or Path(os.environ.get("OUT") or "out/gpu")
    out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in asked.parts or _ALL if not _run(name, out.resolve(), quick=asked.quick)]
    print(f"Results: {out}" + (f". Not in order: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _run(part: str, out: Path, *, quick: bool) -> bool:
    """Run a part until it ends or its time is up, and return whether all of it was in order."""
    (out / f"{part}.json").unlink(missing_ok=True)
    seconds = _QUICK_SECONDS if quick else SECONDS[part]
    end = time.time() + seconds
    print(f"== {part}: at most {seconds} s ==", flush=True)
    command = [sys.executable, "-u", "-m", "benchmarks.gpu.part", part, "--out", str(out)]
    command += ["--until", f"{end - _PLANNED_S:.0f}", *(["--quick"] if quick else [])]
    process = subprocess.Popen(command, start_new_session=True)  # so that compilers that it started end with it
    status = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = process.wait(timeout=max(0.0, end - _KILLED_S - time.time()))
    _end(process)
    path = out / f"{part}.json"
    if path.is_file():
        content = json.loads(path.read_text())
        if not content["complete"]:
            why = f"its time of {seconds} s was up" if status is None else f"its process ended with status {status}"
            content["left_out"].append({"what": "the rest of this part", "why": why})
            path.write_text(json.dumps(content, indent=1) + "\n")
        print_part(content)
    return status == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_KILLED_S - 1)
    with contextlib.suppress(ProcessLookupError):  # all of it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
