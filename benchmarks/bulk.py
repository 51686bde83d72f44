"""Many pictures on Ray beside bare loops, and a manifest of millions of rows: ``python -m benchmarks bulk``.

The rate is that of the processes while they work, without their start.

``--pictures N`` and ``--rows N`` set the sizes, ``--only pictures`` or ``--only rows`` runs a half. Needs the extra
``s3seg[bulk]``. Every way runs in processes of its own, with one thread each, so that they can be compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parent.parent / "examples" / "pictures"
PROMPTS = ["tree", "star"]
_LOG = "S3SEG_BENCH_LOG"


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bulk")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shard-rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["pictures", "rows"])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "rows":
            _compare(Path(folder), options.pictures, options.rounds)
        if options.only != "pictures":
            for rows in dict.fromkeys((options.rows // 10, options.rows)):
                _print_rows(_in_process("rows", Path(folder), str(rows), str(options.shard_rows)))


# ---- pictures a second ----


def _compare(folder: Path, count: int, rounds: int) -> None:
    pictures = folder / "pictures"
    pictures.mkdir()
    originals = sorted(PICTURES.glob("*.png"))
    for k in range(count):
        shutil.copy(originals[k % len(originals)], pictures / f"{k:06d}.png")
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:  # in turns, so that all see the same machine
            taken[way].append(_in_process(way, folder, str(pictures)))
    loop = _middle(taken["bare loop"])
    print(f"\n{count} pictures of 800 x 640, two prompts, the middle of {rounds} rounds")
    print(f"{'':24}{'pictures/s':>12}{'CPU ms each':>13}{'/ bare loop':>13}{'start-up s':>12}")
    for way, runs in taken.items():
        one = _middle(runs)
        each = one["cpu"] / count * 1000
        ratio = one["cpu"] / loop["cpu"]
        print(f"{way:24}{one['rate']:12.1f}{each:13.1f}{ratio:13.2f}{one['total'] - one['seconds']:12.1f}")
    one, two = _middle(taken["bulk, one actor"]), _middle(taken["bulk, two actors"])
    print(f"two actors / one actor: {two['rate'] / one['rate']:.2f} times the pictures a second")


def _middle(runs: list[dict[str, float]]) -> dict[str, float]:
    return sorted(runs, key=lambda one: one["rate"])[len(runs) // 2]


def _in_process(way: str, folder: Path, *arguments: str) -> dict[str, float]:
    """Run a way in a process of its own, and return what its processes have noted."""
    work = Path(tempfile.mkdtemp(dir=folder))
    variables = {"OMP_NUM_THREADS": "1", "S3SEG_CHECKPOINT": "embedded", _LOG: str(work)}
    code = "import sys; from benchmarks.bulk import run_way; run_way(*sys.argv[1:])"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, way, str(work), *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(work)
    return {"total": time.perf_counter() - start, **found}


def run_way(way: str, folder: str, *arguments: str) -> None:
    """In the process: run, and print what was measured as JSON."""
    if way == "rows":
        print(json.dumps(_rows(Path(folder), *map(int, arguments))))
        return
    WAYS[way](sorted(Path(arguments[0]).iterdir()), Path(folder))
    notes = [json.loads(line) for file in Path(folder).glob("*.jsonl") for line in file.read_text().splitlines()]
    by_process = {note["process"]: [one for one in notes if one["process"] == note["process"]] for note in notes}
    spans = {
        name: [max(one[name] for one in some) - min(one[name] for one in some) for some in by_process.values()]
        for name in ("cpu", "at")
    }
    counts = [sum(one["pictures"] for one in some) for some in by_process.values()]
    rate = sum(count / span for count, span in zip(counts, spans["at"], strict=True) if count)
    seconds = max(one["at"] for one in notes) - min(one["at"] for one in notes)
    print(json.dumps({"rate": rate, "cpu": sum(spans["cpu"]), "seconds": seconds}))


def _note(pictures: int = 0) -> None:
    """Note how many pictures were done since the last note, the time, and this process's processor time so far."""
    about = {"process": os.getpid(), "pictures": pictures, "at": time.time(), "cpu": time.process_time()}
    line = json.dumps(about)
    with (Path(os.environ[_LOG]) / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(line + "\n")


def _segmenter() -> Any:
    from s3seg import Segmenter

    made = Segmenter("embedded", device="cpu")
    made.segment(PICTURES / "park.png", PROMPTS)  # the first picture is slower than the others
    _note()
    return made


def _bare_loop(paths: list[Path], folder: Path) -> None:
    segmenter = _segmenter()
    for path in paths:
        segmenter.segment(path, PROMPTS)
    _note(len(paths))


def _segment_many(paths: list[Path], folder: Path) -> None:
    for _ in _segmenter().segment_many(paths, PROMPTS):
        pass
    _note(len(paths))


def _bare_pool(paths: list[Path], folder: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_start_in_pool) as pool:
        for _ in pool.map(_segment_in_pool, paths, chunksize=8):
            pass


_in_pool: Any = None


def _start_in_pool() -> None:
    global _in_pool
    _in_pool = _segmenter()


def _segment_in_pool(path: Path) -> int:
    found = _in_pool.segment(path, PROMPTS)
    _note(1)
    return len(found)


class _Noting:
    """A `Segmenter` that notes time and processor time after each shard."""

    def __init__(self, segmenter: Any) -> None:
        self._segmenter = segmenter

    def segment_many(self, sources: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        yield from self._segmenter.segment_many(sources, *arguments, **options)
        _note(len(sources))


def _load_noting(request: Any, device: str) -> Any:
    return _Noting(_segmenter())


def _bulk(paths: list[Path], folder: Path, *, actors: int) -> None:
    from s3seg.bulk.engine import EngineOptions, RayEngine
    from s3seg.bulk.job import carry_out
    from s3seg.bulk.shard_job import ShardJob

    run = _start(folder / "out", [str(path) for path in paths], None)
    job = ShardJob(run=run, device="cpu", load=_load_noting)
    options = EngineOptions(actors=actors)
    carry_out(job, lambda: RayEngine(job, options))


WAYS: dict[str, Callable[[list[Path], Path], None]] = {
    "bare loop": _bare_loop,
    "segment_many": _segment_many,
    "bare pool of two": _bare_pool,
    "bulk, one actor": lambda paths, folder: _bulk(paths, folder, actors=1),
    "bulk, two actors": lambda paths, folder: _bulk(paths, folder, actors=2),
}


# ---- millions of rows ----


class _NoNetwork:
    """Finds nothing, and reads nothing."""

    def __init__(self) -> None:
        from s3seg import Segmenter

        found = Segmenter("embedded", device="cpu").segment(PICTURES / "park.png", "unicorn")
        self._found = replace(found, image=None)

    def segment_many(self, sources: Iterable[Any], prompt: Any, **options: Any) -> Iterator[Any]:
        for one in sources:
            yield one, [self._found]


def _load_nothing(request: Any, device: str) -> Any:
    return _NoNetwork()


def _rows(folder: Path, rows: int, shard_rows: int) -> dict[str, float]:
    """Run a manifest of so many rows, and measure each phase."""
    from s3seg.bulk.engine import EngineOptions, RayEngine
    from s3seg.bulk.job import carry_out
    from s3seg.bulk.shard_job import ShardJob

    start = time.perf_counter()
    run = _start(folder / "out", (f"s3://bucket/pictures/{k // 1000:06d}/{k:09d}.jpg" for k in range(rows)), shard_rows)
    listed = time.perf_counter()
    job = ShardJob(run=run, device="cpu", load=_load_nothing)
    first: list[float] = []
    audit: list[float] = []

    def on_progress(progress: Any) -> None:
        if progress.counts.rows and not first:
            first.append(time.perf_counter())
        if progress.note:
            audit.append(time.perf_counter())

    options = EngineOptions(actors=2)
    counts = carry_out(job, lambda: RayEngine(job, options), on_progress)
    end = time.perf_counter()
    size = sum(path.stat().st_size for path in (folder / "out").rglob("*.parquet"))
    return {
        "rows": counts.rows,
        "shards": run.shards,
        "list": listed - start,
        "plan": first[0] - listed,
        "work": audit[0] - first[0],
        "audit": end - audit[0],
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "size": size,
    }


def _print_rows(one: dict[str, float]) -> None:
    print(
        f"\n{one['rows']:,.0f} rows in {one['shards']:,.0f} shards, a network that does nothing, two actors:\n"
        f"  manifest written in {one['list']:.1f} s, first shard done {one['plan']:.1f} s later, with Ray's start\n"
        f"  {one['rows'] / one['work']:,.0f} rows a second; audit of all ids {one['audit']:.1f} s\n"
        f"  peak memory of the driver {one['memory'] / 1e6:,.0f} MB; {one['size'] / 1e6:,.0f} MB on the disk"
    )


def _start(out: Path, uris: Iterable[str], shard_rows: int | None) -> Any:
    from s3seg.bulk import run_folder
    from s3seg.bulk.manifest import Listed
    from s3seg.bulk.request import BulkRequest
    from s3seg.bulk.storage import Folder

    request = BulkRequest.make(PROMPTS, checkpoint="embedded")
    return run_folder.start(
        Folder.at(out), "benchmark", request, pictures=lambda: map(Listed, uris), shard_rows=shard_rows
    )
