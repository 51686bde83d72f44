"""Runs on ray, in processes that are killed; nothing is lost and nothing is there twice.

Ray is not in the group of the quick tests (240 MB): ``make test-slow`` installs it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import s3seg
from s3seg.bulk import results, run_folder
from s3seg.bulk.job import ended_its_process
from s3seg.bulk.storage import Folder, S3Access
from tests.bulk.pretend import CORRUPT, HANGS, POISON, make_pictures, names_of, rows_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install --group ray"),
]

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "examples" / "pictures"
MARK = "S3SEG_TEST_RUN"
TIMEOUT_S = 300


class Started:
    """A run in a process of its own, which is started with a mark that its children inherit."""

    def __init__(self, *words: object, log: Path, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *sys.path])
        inherited = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", MARK: self.mark, **environment}
        self._log = log
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it is ignored
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, words)],
                env=inherited,
                cwd=log.parent,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        signal.signal(signal.SIGINT, heard)

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self) -> int:
        """Wait for the end, and for all that it has started."""
        try:
            return self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the run hangs; it said:\n{self.output}")
        finally:
            self.end()

    def kill(self) -> None:
        """End the driver as a crash would: SIGKILL."""
        self._process.kill()
        self._process.wait()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def running(self) -> bool:
        return self._process.poll() is None

    def children(self, kind: str = "") -> list[int]:
        """Process ids of what was started, whose command has this word."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().decode(errors="replace")
                    if kind in command and int(folder.name) != self._process.pid:
                        found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def gone_within(self, seconds: float, kind: str = "") -> bool:
        """Wait until none of what was started, whose command has this word, is left; return whether that came to be."""
        give_up = time.monotonic() + seconds
        while self.children(kind) and time.monotonic() < give_up:
            time.sleep(0.1)
        return not self.children(kind)

    def end(self) -> None:
        """Wait until ray's processes have noticed that the driver is gone; kill what has not after a while."""
        self.gone_within(30)
        for pid in self.children():
            _kill(pid)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Started]]:
    """Start a run with the words of a Python command line; it is ended with the test."""
    begun: list[Started] = []

    def begin(*words: object, **environment: str) -> Started:
        begun.append(Started(*words, log=tmp_path / "log.txt", **environment))
        return begun[-1]

    yield begin
    for one in begun:
        if one.running():
            one.kill()
        one.end()


def scenario(name: str, pictures: Path, out: Path) -> tuple[object, ...]:
    return ("-m", "tests.bulk.ray_scenarios", name, pictures, out)


def command(*words: object) -> tuple[object, ...]:
    return ("-c", "from s3seg.cli import main; main()", "bulk", *words)


def check_once_each(pictures: Path, out: Path) -> run_folder.Run:
    run = run_folder.load(Folder.at(out))
    assert run.completed() is not None
    assert names_of(run) == sorted(path.name for path in pictures.iterdir())
    assert [row["id"] for row in rows_of(run)] == [*range(run.rows)]
    assert not [name for name in (out / "results").iterdir() if results.shard_of(name.name) is None]
    return run


def wait_for(condition: Callable[[], object], started: Started) -> None:
    give_up = time.monotonic() + TIMEOUT_S
    while not condition():
        assert started.running(), f"the run ended early:\n{started.output}"
        assert time.monotonic() < give_up, f"the run hangs; it said:\n{started.output}"
        time.sleep(0.05)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_the_command_finds_what_segmenter_finds_and_a_second_run_adds_nothing(start, tmp_path):
    pictures, out = tmp_path / "p", tmp_path / "out"
    pictures.mkdir()
    for k in range(4):
        for path in PICTURES.glob("*.png"):
            shutil.copy(path, pictures / f"{path.stem}-{k}.png")
    (pictures / "text.png").write_text("no picture")
    words = command(pictures, out, "-p", "tree", "-p", "star", "--actors", "2", "--checkpoint", "embedded")
    first = start(*words)
    assert first.wait() == 3, first.output
    assert "each with one result" in first.output
    run = check_once_each(pictures, out)
    seg = s3seg.Segmenter("embedded", device="cpu")
    for row in rows_of(run):
        if row["uri"].endswith("text.png"):
            assert "text.png" in row["error"]
            continue
        expected = [one for result in seg.segment(row["uri"], ["tree", "star"]) for one in result]
        assert [(one["prompt"], one["area"]) for one in row["instances"]] == [
            (one.prompt, one.area) for one in expected
        ]
        assert [one["score"] for one in row["instances"]] == pytest.approx([one.score for one in expected], abs=1e-5)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert start(*words).wait() == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == files


def test_a_driver_that_is_killed_leaves_no_process_and_the_same_command_continues(start, tmp_path):
    pictures, out = make_pictures(tmp_path / "p", 160), tmp_path / "out"
    first = start(*scenario("slow", pictures, out))
    wait_for(lambda: len([*out.glob("results/part-*")]) >= 4, first)
    first.kill()
    assert first.gone_within(60, "ShardWorker"), "what computes ends at once"
    assert first.gone_within(240), "Ray's own agents look for its server for a minute before they end"
    done = {path: path.stat().st_mtime_ns for path in out.glob("results/part-*")}
    assert 4 <= len(done) < 40
    second = start(*scenario("slow", pictures, out))
    assert second.wait() == 0, second.output
    check_once_each(pictures, out)
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was done is not done again"


def test_a_machine_that_is_too_busy_to_start_ray_is_an_error_that_says_so(start, tmp_path):
    run = start(*scenario("does_not_start", make_pictures(tmp_path / "p", 4), tmp_path / "out"))
    assert run.wait() == 0, run.output
    assert "said: Ray does not run on this machine: The current node timed out during startup.\n" in run.output


def test_ctrl_c_says_how_to_continue_and_leaves_no_process(start, tmp_path):
    pictures, out = tmp_path / "p", tmp_path / "out"
    pictures.mkdir()
    for k in range(400):
        shutil.copy(PICTURES / "shapes.png", pictures / f"{k:03d}.png")
    run = start(*command(pictures, out, "-p", "star", "--checkpoint", "embedded", "--shard-rows", "4"))
    wait_for(lambda: len([*out.glob("results/part-*")]) >= 2, run)
    run.interrupt()
    assert run.wait() == 130, run.output
    assert "stopped: what is done stays done; the same command continues" in run.output
    assert "Traceback" not in run.output
    assert run.children() == []


def test_a_picture_that_kills_its_process_is_a_row_with_its_error(start, tmp_path):
    pictures, out = make_pictures(tmp_path / "p", 40, {13: POISON, 14: CORRUPT, 39: POISON}), tmp_path / "out"
    run = start(*scenario("pretend", pictures, out))
    assert run.wait() == 0, run.output
    rows = {row["uri"].rpartition("/")[2]: row["error"] for row in rows_of(check_once_each(pictures, out))}
    assert {name: error for name, error in rows.items() if error} == {
        "013.png": f"{pictures / '013.png'}: {ended_its_process(600)}",
        "014.png": f"{pictures / '014.png'}: this is no picture",
        "039.png": f"{pictures / '039.png'}: {ended_its_process(600)}",
    }


def test_a_picture_that_hangs_is_a_row_with_its_error_and_costs_no_other(start, tmp_path):
    pictures, out = make_pictures(tmp_path / "p", 24, {5: HANGS, 6: CORRUPT}), tmp_path / "out"
    run = start(*scenario("limited", pictures, out))
    assert run.wait() == 0, run.output
    rows = {row["uri"].rpartition("/")[2]: row["error"] for row in rows_of(check_once_each(pictures, out))}
    assert {name: error for name, error in rows.items() if error} == {
        "005.png": f"{pictures / '005.png'}: {ended_its_process(2)}",
        "006.png": f"{pictures / '006.png'}: this is no picture",
    }


def test_a_node_that_is_removed_by_force_costs_no_picture(start, tmp_path):
    pictures, out = make_pictures(tmp_path / "p", 160), tmp_path / "out"
    run = start(*scenario("node_removed", pictures, out))
    assert run.wait() == 0, run.output
    assert "removed" in run.output
    assert all(row["error"] is None for row in rows_of(check_once_each(pictures, out)))


def test_after_ten_kills_at_random_moments_nothing_is_lost_and_nothing_is_there_twice(start, tmp_path):
    pictures, out = make_pictures(tmp_path / "p", 400, {100: CORRUPT}), tmp_path / "out"
    draw = random.Random(os.environ.get("S3SEG_TEST_SEED", "18"))
    kills = 0
    for _ in range(40):
        run = start(*scenario("slow", pictures, out))
        while kills < 10 and run.running():
            done = len([*out.glob("results/part-*")])
            wait_until = time.monotonic() + draw.uniform(0, 4)
            while run.running() and (time.monotonic() < wait_until or (done and not run.children("ray::"))):
                time.sleep(0.05)
            victims = draw.choice([run.children("ray::"), run.children("raylet"), "driver", "driver"])
            if not run.running():
                break
            if victims == "driver":
                run.kill()
                kills += 1
            elif victims:
                _kill(draw.choice(list(victims)))  # type: ignore[arg-type]
                kills += 1
        ended = run.wait()
        if kills >= 10 and ended == 0:
            break
    assert kills == 10, "the run was over before it was killed ten times"
    assert ended == 0, run.output
    rows = rows_of(check_once_each(pictures, out))
    assert [row["uri"].rpartition("/")[2] for row in rows if row["error"]] == ["100.png"]


def test_from_bucket_to_bucket_across_an_outage_of_the_server(start, tmp_path):
    from tests.cloud.parts.faulty_proxy import faulty_proxy
    from tests.cloud.parts.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, seaweed

    home = tmp_path / "seaweed"
    home.mkdir()
    with seaweed(home) as bucket, faulty_proxy(bucket.endpoint) as proxy:
        for k in range(5):
            for path in PICTURES.glob("*.png"):
                bucket.client.put_object(Bucket=BUCKET, Key=f"p/{k}/{path.name}", Body=path.read_bytes())
        bucket.client.put_object(Bucket=BUCKET, Key="p/text.png", Body=b"no picture")
        settings = {
            "S3SEG_R2_ENDPOINT_URL": proxy.url,
            "S3SEG_R2_ACCESS_KEY_ID": ACCESS_KEY,
            "S3SEG_R2_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        source, out = f"s3://{BUCKET}/p", f"s3://{BUCKET}/out"
        words = command(source, out, "-p", "tree", "--checkpoint", "embedded", "--actors", "1", "--shard-rows", "3")
        first = start(*words, **settings)
        listing = {"Bucket": BUCKET, "Prefix": "out/results/"}
        wait_for(lambda: bucket.client.list_objects_v2(**listing)["KeyCount"] >= 2, first)
        proxy.always = "503"
        assert first.wait() == 1
        assert "did not answer as it should" in first.output
        proxy.always = "pass"
        second = start(*words, **settings)
        assert second.wait() == 3, second.output
        assert SECRET_KEY not in second.output
        folder = Folder.at(out, S3Access(bucket.endpoint, ACCESS_KEY, SECRET_KEY))
        run = run_folder.load(folder)
        rows = rows_of(run)
        assert [row["id"] for row in rows] == [*range(21)]
        assert [row["uri"] for row in rows if row["error"]] == [f"s3://{BUCKET}/p/text.png"]
        assert run.completed() is not None
        merged = start(*command("coco", out), **settings)
        assert merged.wait() == 0
        text = merged.output[merged.output.index('{"info"') :]
        assert len(json.loads(text)["images"]) == 20


def test_the_function_returns_a_dataset_and_its_stage_composes_with_others(start, tmp_path):
    pictures, out = tmp_path / "p", tmp_path / "out"
    pictures.mkdir()
    for path in PICTURES.glob("*.png"):
        shutil.copy(path, pictures)
    (pictures / "text.png").write_text("no picture")
    run = start(*scenario("dataset", pictures, out))
    assert run.wait() == 0, run.output
    assert "same 5" in run.output
