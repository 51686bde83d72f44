"""A run brings every picture to exactly one result, whatever fails or dies on the way. Without ray; see `pretend`."""

from __future__ import annotations

import errno
import pickle
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3seg.bulk import results, segmenting
from s3seg.bulk.job import Progress, carry_out, ended_its_process
from s3seg.bulk.results import Counts
from s3seg.bulk.shard_job import ShardJob
from s3seg.bulk.storage import Folder
from s3seg.errors import CheckpointNotFoundError, S3segError, UnavailableError
from tests.bulk.pretend import (
    BREAKS,
    CORRUPT,
    POISON,
    PretendEngine,
    PretendNetwork,
    make_pictures,
    names_of,
    rows_of,
    start_run,
)


def no_engine():
    raise AssertionError("there is nothing to do, so nothing is started")


class Bench:
    """A run on pretend pictures."""

    def __init__(self, folder, count, contents=None):
        self.pictures = make_pictures(folder / "p", count, contents)
        self.out = folder / "out"
        self.network = PretendNetwork()

    def job(self, **options):
        return ShardJob(run=start_run(self.pictures, self.out), load=lambda request, device: self.network, **options)

    def carry_out(self, engine=None, **options):
        return carry_out(self.job(), lambda: engine or PretendEngine(), **options)

    @property
    def errors(self):
        rows = rows_of(start_run(self.pictures, self.out))
        return {row["uri"].rpartition("/")[2]: row["error"] for row in rows if row["error"] is not None}

    def check_once_each(self):
        run = start_run(self.pictures, self.out)
        assert names_of(run) == sorted(path.name for path in self.pictures.iterdir())
        assert [row["id"] for row in rows_of(run)] == [*range(run.rows)]


def test_every_picture_gets_one_row(tmp_path):
    bench = Bench(tmp_path, 10)
    assert bench.carry_out() == Counts(rows=10, failed=0, instances=20)
    bench.check_once_each()


def test_a_second_run_writes_nothing_twice_and_starts_nothing(tmp_path):
    bench = Bench(tmp_path, 10)
    first = bench.carry_out()
    assert carry_out(bench.job(), no_engine) == first
    bench.check_once_each()


def test_a_shard_is_a_unit_of_work_however_the_manifest_is_stored(tmp_path):
    engine = PretendEngine()
    Bench(tmp_path, 10).carry_out(engine)
    assert engine.shards == [0, 1, 2], "one row group of the manifest, three units of work"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_run_that_was_stopped_continues_and_reads_no_picture_again(tmp_path, after):
    bench = Bench(tmp_path, 12)
    with pytest.raises(KeyboardInterrupt):
        bench.carry_out(PretendEngine(stop_after=after))
    assert len(bench.network.read) == 4 * after
    assert bench.carry_out().rows == 12
    assert Counter(bench.network.read) == Counter(f"{k:03d}.png" for k in range(12))
    bench.check_once_each()


def test_a_picture_that_cannot_be_read_is_a_row_with_its_error(tmp_path):
    bench = Bench(tmp_path, 6, {2: CORRUPT})
    assert bench.carry_out() == Counts(rows=6, failed=1, instances=10)
    assert bench.errors == {"002.png": f"{bench.pictures / '002.png'}: this is no picture"}


def test_a_picture_that_vanished_since_the_listing_is_a_row_with_its_error(tmp_path):
    bench = Bench(tmp_path, 6)
    job = bench.job()
    (bench.pictures / "003.png").unlink()
    assert carry_out(job, PretendEngine).failed == 1
    assert bench.errors == {"003.png": f"{bench.pictures / '003.png'}: there is no such file"}


def test_a_picture_that_ends_its_process_is_a_row_with_its_error_and_costs_no_other(tmp_path):
    bench, engine = Bench(tmp_path, 12, {5: POISON}), PretendEngine()
    assert bench.carry_out(engine) == Counts(rows=12, failed=1, instances=22)
    assert bench.errors == {"005.png": f"{bench.pictures / '005.png'}: {ended_its_process(600)}"}
    assert engine.shards == [0, 1, 2], "a shard that ends its processes is not tried as a whole again"
    assert sorted(engine.alone) == [4, 5, 6, 7]
    bench.check_once_each()


def test_a_picture_that_breaks_the_network_is_tried_alone_and_is_a_row_with_its_error(tmp_path):
    bench, engine = Bench(tmp_path, 12, {5: BREAKS}), PretendEngine()
    assert bench.carry_out(engine).failed == 1
    assert bench.errors == {"005.png": f"{bench.pictures / '005.png'}: the network failed"}
    assert engine.shards == [0, 1, 2, 1], "an error may pass, so the shard is tried once more"
    bench.check_once_each()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    contents=st.dictionaries(st.integers(0, 11), st.sampled_from([POISON, CORRUPT, BREAKS]), max_size=6),
    stops=st.lists(st.integers(0, 3), max_size=4),
)
def test_whatever_fails_and_however_often_it_is_stopped_each_picture_has_one_row(tmp_path_factory, contents, stops):
    bench = Bench(tmp_path_factory.mktemp("run"), 12, contents)
    for after in stops:
        try:
            bench.carry_out(PretendEngine(stop_after=after))
        except KeyboardInterrupt:
            continue
    assert bench.carry_out() == Counts(12, len(contents), 2 * (12 - len(contents)))
    assert set(bench.errors) == {f"{k:03d}.png" for k in contents}
    bench.check_once_each()


def test_a_full_disk_leaves_no_half_file_and_the_run_continues_when_there_is_room(tmp_path, monkeypatch):
    bench = Bench(tmp_path, 10)
    write, room = Folder.write, [1]

    def write_while_there_is_room(self, name, content):
        if name.startswith("results/"):
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device", name)
            room.pop()
        write(self, name, content)

    monkeypatch.setattr(Folder, "write", write_while_there_is_room)
    with pytest.raises(UnavailableError, match=r"2 of 3 shards are not done: .*No space left on device"):
        bench.carry_out()
    assert [file.name for file in (bench.out / "results").iterdir()] == ["part-0000000.parquet"]
    monkeypatch.undo()
    assert bench.carry_out().rows == 10
    bench.check_once_each()


def test_an_s3_server_that_does_not_answer_leaves_pictures_undone_and_not_failed(tmp_path, monkeypatch):
    bench = Bench(tmp_path, 10)
    real = segmenting.read_picture

    def answers_not(address, s3):
        if address.endswith("006.png"):
            raise UnavailableError(f"{address}: the S3 server did not answer as it should")
        return real(address, s3)

    monkeypatch.setattr(segmenting, "read_picture", answers_not)
    with pytest.raises(UnavailableError, match=r"1 of 3 shards are not done: .*006\.png: the S3 server did not answer"):
        bench.carry_out()
    monkeypatch.undo()
    assert bench.carry_out() == Counts(10, 0, 20)


def test_a_run_stops_early_when_nothing_works(tmp_path):
    bench, engine = Bench(tmp_path, 200, dict.fromkeys(range(200), BREAKS)), PretendEngine()
    with pytest.raises(UnavailableError, match=r"16 shards failed in a row, the last with: .*the network failed"):
        bench.carry_out(engine)
    assert len(engine.shards) == 16


def test_an_error_that_every_shard_would_have_ends_the_run_at_once(tmp_path):
    bench, engine = Bench(tmp_path, 40), PretendEngine()

    def load(request, device):
        raise CheckpointNotFoundError("there is no checkpoint 'sam3' on this machine")

    with pytest.raises(S3segError, match="no checkpoint 'sam3'"):
        carry_out(ShardJob(run=start_run(bench.pictures, bench.out), load=load), lambda: engine)
    assert engine.shards == [0]


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more"])
def test_a_damaged_file_of_results_is_made_again(tmp_path, damage):
    bench, engine = Bench(tmp_path, 10), PretendEngine()
    bench.carry_out()
    (bench.out / "complete.json").unlink()
    (bench.out / results.part_name(1)).write_bytes(damage)
    assert bench.carry_out(engine) == Counts(10, 0, 20)
    assert sorted(engine.alone) == [4, 5, 6, 7]
    bench.check_once_each()


def test_progress_counts_what_is_done_now_and_what_was_done_earlier(tmp_path):
    bench, told = Bench(tmp_path, 10, {9: CORRUPT}), []
    with pytest.raises(KeyboardInterrupt):
        bench.carry_out(PretendEngine(stop_after=1))
    bench.carry_out(on_progress=told.append)
    assert [(one.earlier, one.counts.rows, one.counts.failed) for one in told if not one.note] == [
        (4, 0, 0),
        (4, 4, 0),
        (4, 6, 1),
    ]
    assert told[-1] == Progress(10, Counts(6, 1, 10), 4, "checking that every picture has one result")


def test_a_job_can_be_sent_to_another_process(tmp_path):
    job = ShardJob(run=start_run(make_pictures(tmp_path / "p", 3), tmp_path / "out"))
    assert pickle.loads(pickle.dumps(job)) == job
