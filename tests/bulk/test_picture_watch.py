"""A picture that hangs ends its process, whatever it hangs in; others are not touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3seg.bulk.job import carry_out, ended_its_process
from s3seg.bulk.picture_watch import PictureWatch
from s3seg.bulk.shard_job import AloneReport, ShardJob, ShardWorker
from s3seg.errors import InvalidRequestError
from tests.bulk.pretend import HANGS, PretendEngine, PretendNetwork, make_pictures, rows_of, start_run

ROOT = Path(__file__).parents[2]
WATCHED = """
import re, sys, time
from s3seg.bulk.picture_watch import PictureWatch

def sleeps(): time.sleep(60)
def loops():
    while True: pass
def holds_the_lock(): re.match("(a+)+$", "a" * 60 + "b")
def finishes_pictures():
    for _ in range(8):
        time.sleep(0.15)
        watch.restart()

with PictureWatch(1.0) as watch:
    {function}()
time.sleep(1.1)
print("done")
"""


def ended(function: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    code = WATCHED.format(function=function)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("function", ["sleeps", "loops", "holds_the_lock"])
def test_a_process_in_which_a_picture_takes_too_long_ends_and_says_where_it_was(function):
    process = ended(function)
    assert (process.returncode, process.stdout) == (1, "")
    assert f"in {function}" in process.stderr


def test_each_finished_picture_starts_the_time_again_and_the_end_stops_it():
    process = ended("finishes_pictures")
    assert (process.returncode, process.stdout, process.stderr) == (0, "done\n", "")


def test_without_a_limit_nothing_is_watched(monkeypatch):
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda *arguments, **options: pytest.fail("watched"))
    with PictureWatch(None) as watch:
        watch.restart()


ALONE = """
import sys
from pathlib import Path
from tests.bulk.test_picture_watch import job_for
from s3seg.bulk.shard_job import ShardWorker
report = ShardWorker(job_for(Path(sys.argv[1]), Path(sys.argv[2]))).alone(int(sys.argv[3]), sys.argv[4])
print(report.error, report.row["error"])
"""


def job_for(pictures: Path, out: Path) -> ShardJob:
    return ShardJob(run=start_run(pictures, out), load=lambda request, device: PretendNetwork(), picture_timeout_s=1)


class ProcessEngine(PretendEngine):
    """Does the shards in this process, without those that have a picture that hangs; single pictures in processes."""

    def run(self, job, shards):
        for shard in shards:
            if not any(Path(uri).read_bytes() == HANGS for uri in job.run.uris(shard)):
                yield ShardWorker(job).shard(shard)

    def _alone(self, job, number, uri):
        if Path(uri).read_bytes() != HANGS:
            return ShardWorker(job).alone(number, uri)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        place = Path(uri).parent, job.run.out.path("")
        command = [sys.executable, "-c", ALONE, *map(str, place), str(number), uri]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
        assert (process.returncode, process.stdout) == (1, ""), process.stderr
        return AloneReport(number)


def test_a_picture_that_hangs_is_a_row_with_its_error_and_costs_no_other(tmp_path):
    pictures = make_pictures(tmp_path / "p", 9, {5: HANGS})
    job = job_for(pictures, tmp_path / "out")
    carry_out(job, ProcessEngine)
    errors = {Path(row["uri"]).name: row["error"] for row in rows_of(job.run)}
    assert len(errors) == 9
    assert {name: error for name, error in errors.items() if error} == {
        "005.png": f"{pictures / '005.png'}: {ended_its_process(1)}"
    }
    assert "more than 1 s" in ended_its_process(1)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_no_time_is_refused(tmp_path, seconds):
    with pytest.raises(InvalidRequestError, match="picture_timeout_s"):
        ShardJob(run=start_run(make_pictures(tmp_path / "p", 1), tmp_path / "out"), picture_timeout_s=seconds)
