"""From the start of a process to the first result, by stage: ``python -m benchmarks cold_start --help``.

A checkpoint of full size with random weights is written once, in the layout of transformers; then ``s3seg serve gpu``
is started and asked until it is ready. ``--segment`` measures the command ``s3seg segment`` instead. Stages that run
beside each other on several threads add up to more than the time until the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.http_load import free_port

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "examples" / "pictures" / "street.png"
TRACED = Path(__file__).parent / "traced"
STAGES = {
    "s3seg.cli": {"": "import the command line"},
    "s3seg.commands.segment.run": {"": "import the command", "run": "the rest of the command"},
    "s3seg.app.services": {"": "import the service", "gpu_app": "build the service"},
    "s3seg.web.gpu_app": {"": "import the web"},
    "s3seg.web.server": {"": "import the server"},
    "s3seg.inference.engine": {"": "import the engine"},
    "s3seg.inference.segmenter": {"": "import the pipeline"},
    "torch": {"": "import torch"},
    "s3seg.sam3.predictor": {
        "": "import the network",
        "Predictor.from_path": "the rest of loading",
        "Predictor.__init__": "position tables",
        "Predictor.encode_resized": "encode a picture",
        "Predictor.predict_pairs": "decode a prompt",
    },
    "s3seg.sam3.load": {
        "open_weights": "open the weights",
        "empty_model": "build the network",
        "plan_loading": "compare with the file",
        "load": "read the weights",
    },
    "s3seg.sam3.tokenizer": {"Tokenizer.from_folder": "read the tokenizer"},
    "s3seg.app.accelerator": {"start_process": "wait for the network's process"},
    "s3seg.images": {"": "import pictures", "load": "decode a picture"},
    "s3seg.inference.batcher": {"Batcher.warm": "warm up, with the first picture"},
}
_LAST = "all"
_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a start.

    Attributes:
        begin_s: When it first began, in seconds since the process was started.
        end_s: When it last ended.
        own_s: How long it took, without other stages inside it.
    """

    begin_s: float
    end_s: float
    own_s: float


def main(arguments: list[str]) -> int:
    """Measure what the arguments say, and print a table for each state of the page cache."""
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        folder = _checkpoint(options, stack)
        sources = {"this": ROOT / "src"} | ({} if options.beside is None else {"before": options.beside / "src"})
        for cache in ("warm", "cold") if options.cache == "both" else (options.cache,):
            runs: dict[str, list[dict[str, Stage]]] = {name: [] for name in sources}
            for turn in range(options.rounds + 1):
                for name, source in sources.items():
                    if cache == "cold" and folder is not None:
                        drop_from_cache(folder)
                    elif turn == 0 and folder is not None:
                        _read(folder)
                    stages = measure(source, folder, segment=options.segment, dtype=options.dtype)
                    if turn:  # the first compiles modules
                        runs[name].append(stages)
            _show(options, cache, {name: _middle(found) for name, found in runs.items()})
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks cold_start", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the embedded checkpoint, instead of one of full size")
    parser.add_argument("--segment", action="store_true", help="s3seg segment, instead of s3seg serve gpu")
    parser.add_argument("--file", choices=("float32", "bfloat16"), default="float32", help="precision of the file")
    parser.add_argument("--dtype", default="auto", help="precision of the network")
    parser.add_argument("--cache", choices=("warm", "cold", "both"), default="both", help="of the weight file")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each kind; the one in the middle is shown")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="measure another checkout in turns with this")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the checkpoint here for further runs")
    return parser.parse_args(arguments)


def _checkpoint(options: argparse.Namespace, stack: contextlib.ExitStack) -> Path | None:
    """Return the folder of the checkpoint, which is written if it is not there; None for the embedded one."""
    if options.quick:
        return None
    folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.full_size", "make", "sam3", str(folder), options.file]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def measure(source: Path, folder: Path | None, *, segment: bool, dtype: str = "auto") -> dict[str, Stage]:
    """Start a process, and return its stages in order.

    Args:
        source: The folder ``src`` of a checkout.
        folder: The checkpoint; None takes the embedded one.
        segment: Run ``s3seg segment`` on a picture, instead of ``s3seg serve gpu`` until it is ready.
        dtype: Precision of the network.
    """
    with tempfile.TemporaryDirectory() as work:
        noted = Path(work) / "stages.jsonl"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("S3SEG_", "API_"))},
            "PYTHONPATH": os.pathsep.join((str(TRACED), str(source))),
            "PYTHONDONTWRITEBYTECODE": "",
            "TRACE_STAGES": json.dumps(STAGES),
            "TRACE_FILE": str(noted),
            "S3SEG_DATA_DIR": work,
        }
        model = ["--checkpoint", "embedded" if folder is None else str(folder), "--dtype", dtype]
        begin = time.monotonic()
        if segment:
            command = [sys.executable, "-m", "s3seg", "segment", str(PICTURE), "car", "-q", *model]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=_LIMIT_S)
            answered = {}
        else:
            answered = _serve(model, environment)
        end = time.monotonic()
        notes = [json.loads(line) for line in noted.read_text(encoding="utf-8").splitlines()]
    found = {"start Python": Stage(0.0, notes[0]["begin"] - begin, notes[0]["begin"] - begin)}
    for note in sorted(notes[1:], key=lambda note: note["begin"]):
        if note["stage"] != "python":
            known = found.get(note["stage"], Stage(note["begin"] - begin, 0.0, 0.0))
            found[note["stage"]] = Stage(known.begin_s, note["end"] - begin, known.own_s + note["own"])
    found |= {name: Stage(at - begin, at - begin, 0.0) for name, at in answered.items()}
    return found | {_LAST: Stage(0.0, end - begin, end - begin)}


def _serve(model: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Start the gpu service, and return when it first answered, and when it was ready."""
    port = free_port()
    command = [sys.executable, "-m", "s3seg", "serve", "gpu", "--insecure-no-key", "--port", str(port), *model]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            return {
                f"first answer of {path}": _first(f"http://127.0.0.1:{port}{path}", server, log)
                for path in ("/health", "/ready")
            }
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _first(url: str, server: subprocess.Popen[bytes], log: object) -> float:
    """Ask until the answer is 200, and return when that was."""
    limit = time.monotonic() + _LIMIT_S
    with httpx.Client(timeout=5) as http:
        while time.monotonic() < limit:
            with contextlib.suppress(httpx.TransportError):
                if http.get(url).status_code == 200:
                    return time.monotonic()
            if server.poll() is not None:
                break
            time.sleep(0.005)
    log.seek(0)  # type: ignore[attr-defined]
    raise RuntimeError(f"the service did not answer {url}: {log.read()[-2000:]!r}")  # type: ignore[attr-defined]


def drop_from_cache(folder: Path) -> None:
    """Let the system forget what it has read of the weights, so that they come from the disk again."""
    for file in _weights(folder):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(folder: Path) -> None:
    for file in _weights(folder):
        with file.open("rb") as opened:
            while opened.read(1 << 24):
                pass


def _weights(folder: Path) -> Iterator[Path]:
    return folder.glob("*.safetensors")


def _middle(runs: list[dict[str, Stage]]) -> dict[str, Stage]:
    return sorted(runs, key=lambda stages: stages[_LAST].end_s)[len(runs) // 2]


def _show(options: argparse.Namespace, cache: str, found: dict[str, dict[str, Stage]]) -> None:
    what = "s3seg segment" if options.segment else "s3seg serve gpu"
    which = "the embedded checkpoint" if options.quick else f"a checkpoint of full size in {options.file}"
    table = Table(title=f"{what} with {which}, page cache {cache}; seconds", title_justify="left")
    table.add_column("stage")
    for column in ("begins", "ends", "own"):
        table.add_column(column, justify="right")
    before = found.get("before")
    if before is not None:
        table.add_column("own, before", justify="right")
        table.add_column("ratio", justify="right")
    names = dict.fromkeys(name for stages in found.values() for name in stages if name != _LAST)
    for name in (*names, _LAST):
        stage, old = found["this"].get(name), None if before is None else before.get(name)
        cells = ["", "", ""] if stage is None else [f"{stage.begin_s:.2f}", f"{stage.end_s:.2f}", f"{stage.own_s:.2f}"]
        if before is not None:
            ours, theirs = _length(stage), _length(old)
            cells += [f"{theirs:.2f}" if old else "", f"{ours / theirs:.2f}" if stage and old and theirs else ""]
        table.add_row(name, *cells)
    Console(width=120).print(table)


def _length(stage: Stage | None) -> float:
    """Return how long a stage took; for an answer, when it came."""
    return 0.0 if stage is None else stage.own_s or stage.end_s
