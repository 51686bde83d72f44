"""The folder of a run: started once, continued by the same request only, and compared with its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3seg.bulk import results, run_folder
from s3seg.bulk.job import carry_out
from s3seg.bulk.listing import list_pictures, source_of
from s3seg.bulk.manifest import Listed
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.results import Counts
from s3seg.bulk.run_folder import Audit, Run
from s3seg.bulk.shard_job import ShardJob
from s3seg.bulk.storage import Folder, S3Access
from s3seg.errors import InvalidRequestError, NotFoundError, S3segError
from tests.bulk.pretend import (
    PretendEngine,
    PretendNetwork,
    make_pictures,
    names_of,
    request_for,
    rows_of,
    start_run,
)

ROW = results.error_row("no")


def write(run: Run, shard: int) -> None:
    start, uris = run.ids(shard).start, run.uris(shard)
    results.write(run.out, shard, start, uris, [ROW] * len(uris), fingerprint=run.fingerprint)


@pytest.fixture
def run(tmp_path) -> Run:
    return start_run(make_pictures(tmp_path / "p", 10), tmp_path / "out")


def test_a_run_is_listed_once_and_keeps_its_list_when_the_folder_changes(run, tmp_path):
    make_pictures(tmp_path / "p", 12)
    again = start_run(tmp_path / "p", tmp_path / "out")
    assert again == run == run_folder.load(run.out)
    assert [uri.rpartition("/")[2] for shard in range(3) for uri in again.uris(shard)] == [
        f"{k:03d}.png" for k in range(10)
    ]


def test_every_picture_is_in_one_shard(run):
    assert run.shards == 3
    assert [*map(len, map(run.ids, range(3)))] == [4, 4, 2]


def test_another_request_is_refused_and_told_what_differs(run, tmp_path):
    for request, what in ((request_for("bird"), "prompts was"), (request_for(threshold=0.7), "threshold was None")):
        with pytest.raises(InvalidRequestError, match=f"another request: {what}"):
            start_run(tmp_path / "p", run.out, request)
    make_pictures(tmp_path / "q", 1)
    with pytest.raises(InvalidRequestError, match="another request: input was"):
        start_run(tmp_path / "q", run.out)
    assert run_folder.load(run.out) == run


def test_the_size_of_shards_cannot_be_changed_later(run, tmp_path):
    with pytest.raises(InvalidRequestError, match="4 pictures a shard"):
        start_run(tmp_path / "p", run.out, shard_rows=5)
    assert start_run(tmp_path / "p", run.out, shard_rows=None) == run


@pytest.mark.parametrize("shard_rows", [0, -5, 1.5])
def test_a_size_of_shards_that_is_no_number_of_pictures_starts_no_run(tmp_path, shard_rows):
    with pytest.raises(InvalidRequestError, match="shard_rows must be a whole number, 1 or more"):
        start_run(make_pictures(tmp_path / "p", 3), tmp_path / "out", shard_rows=shard_rows)
    assert not (tmp_path / "out").exists()


def test_a_listing_that_was_cut_off_is_done_again(run, tmp_path):
    (tmp_path / "out" / "run.json").unlink()
    make_pictures(tmp_path / "p", 12)
    assert start_run(tmp_path / "p", run.out).rows == 12


def test_results_without_a_request_are_never_taken_for_ours(run, tmp_path):
    write(run, 0)
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(InvalidRequestError, match="1 files of results"):
        start_run(tmp_path / "p", run.out)


def test_a_folder_without_pictures_starts_no_run(tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(InvalidRequestError, match="no picture in it"):
        start_run(tmp_path / "p", tmp_path / "out")
    with pytest.raises(NotFoundError, match="no bulk run here"):
        run_folder.load(Folder.at(tmp_path / "out"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "s3seg.bulk/2"}', b'{"format": "s3seg.bulk/1"}'])
def test_a_damaged_request_is_an_error_and_not_a_new_run(run, tmp_path, content):
    (tmp_path / "out" / "run.json").write_bytes(content)
    with pytest.raises(InvalidRequestError, match=r"run\.json"):
        run_folder.load(run.out)


def test_the_stored_request_holds_no_secret(run, tmp_path):
    stored = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(stored) == {"format", "version", "key", "input", "rows", "bytes", "shard_rows", "digests", "request"}
    assert stored["key"] == request_for().key(stored["input"])


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (500, 8), (6400, 100), (10**7, 256)])
def test_shards_are_small_in_small_runs(tmp_path, monkeypatch, rows, size):
    monkeypatch.setattr(run_folder.manifest, "write", lambda *_: run_folder.manifest.Totals(rows, 0, ()))
    run = run_folder.start(Folder.at(tmp_path), "/p", request_for(), pictures=lambda: [])
    assert run.shard_rows == size


# ---- the anti-join ----


def test_nothing_done_is_all_missing(run):
    assert run.missing() == [0, 1, 2]
    assert run.audit() == Audit(missing=[0, 1, 2])


@settings(max_examples=50)
@given(rows=st.integers(1, 40), shard_rows=st.integers(1, 9), data=st.data())
def test_what_is_missing_is_what_was_not_written_whatever_that_is(tmp_path_factory, rows, shard_rows, data):
    run = Run(
        out=Folder.at(tmp_path_factory.mktemp("out")),
        source="/p",
        request=request_for(),
        rows=rows,
        bytes=0,
        shard_rows=shard_rows,
        digests=("0",),
    )
    states = data.draw(
        st.lists(st.sampled_from(["absent", "whole", "short", "twice"]), min_size=run.shards, max_size=run.shards)
    )
    whole = 0
    for shard, state in enumerate(states):
        ids = run.ids(shard)
        count = {"whole": len(ids), "short": len(ids) - 1, "twice": len(ids) + 1}.get(state)
        if count is not None:
            results.write(run.out, shard, ids.start, ["/u"] * count, [ROW] * count, fingerprint=run.fingerprint)
        whole += len(ids) if state == "whole" else 0
    audit = run.audit()
    assert audit.missing == [shard for shard, state in enumerate(states) if state != "whole"]
    assert audit.counts == Counts(whole, whole, 0)


def test_a_run_is_complete_only_after_the_audit_found_every_picture(run):
    write(run, 0)
    write(run, 2)
    with pytest.raises(S3segError, match="not complete"):
        run.finish(run.audit())
    assert run.completed() is None
    write(run, 1)
    run.finish(run.audit())
    assert run.completed() == Counts(10, 10, 0)


def test_a_complete_run_that_lost_a_file_is_not_complete_any_more(run, tmp_path):
    for shard in range(3):
        write(run, shard)
    run.finish(run.audit())
    (tmp_path / "out" / results.part_name(1)).unlink()
    assert run.completed() is None
    assert run.missing() == [1]


def test_results_of_pictures_that_are_not_in_the_manifest_are_told(run):
    for shard in range(3):
        write(run, shard)
    results.write(run.out, 7, 28, ["/x"], [ROW], fingerprint=run.fingerprint)
    audit = run.audit()
    assert (audit.missing, audit.unknown) == ([], [7])
    with pytest.raises(S3segError, match="unknown"):
        run.finish(audit)


# ---- two processes that start a run in the same folder at the same time ----


def overtake(first: Callable[[], Run], source: Path, out: Path, request: BulkRequest | None = None) -> tuple[Run, Run]:
    """Start a run, and complete the start of another one while the first one is listing its pictures."""
    begun: list[Run] = []

    def pictures() -> Iterable[Listed]:
        listed = [*list_pictures(source_of(source), S3Access())]
        begun.append(first())
        return listed

    request = request or request_for()
    second = run_folder.start(Folder.at(out), source_of(source), request, pictures=pictures, shard_rows=4)
    return begun[0], second


def test_two_starts_of_the_same_run_are_one_run(tmp_path):
    source, out = make_pictures(tmp_path / "p", 10), tmp_path / "out"
    first, second = overtake(lambda: start_run(source, out), source, out)
    assert first == second
    write(first, 0)
    write(second, 1)
    write(first, 2)
    for run in (first, second):
        run.finish(run.audit())
        assert run.completed() == Counts(10, 10, 0)


@pytest.mark.parametrize("prompt", ["cat", "bird"])
def test_a_run_that_another_one_replaced_ends_and_leaves_no_rows(tmp_path, prompt):
    source, out = make_pictures(tmp_path / "p", 10), tmp_path / "out"

    def start_and_write() -> Run:
        if prompt == "cat":  # the same request; there is another picture, which comes first and moves all others
            (source / "+.png").write_bytes(b"new")
        run = start_run(source, out, request_for(prompt))
        write(run, 0)
        return run

    first, second = overtake(start_and_write, source, out, request_for("cat"))
    with pytest.raises(InvalidRequestError, match="another run was started in the same folder"):
        first.uris(1)
    with pytest.raises(S3segError, match="has replaced this one"):
        first.finish(Audit(counts=Counts(first.rows)))
    assert run_folder.load(second.out) == second
    assert second.audit().missing == [0, 1, 2]
    counts = carry_out(ShardJob(run=second, load=lambda *_: PretendNetwork()), PretendEngine)
    assert counts == Counts(10, 0, 10)
    assert names_of(second) == [f"{k:03d}.png" for k in range(10)]
    assert {one["prompt"] for row in rows_of(second) for one in row["instances"]} == {"cat"}


def test_a_run_that_replaced_a_complete_one_is_not_complete(tmp_path):
    source, out = make_pictures(tmp_path / "p", 10), tmp_path / "out"

    def start_and_finish() -> Run:
        run = start_run(source, out, request_for("bird"))
        for shard in range(run.shards):
            write(run, shard)
        run.finish(run.audit())
        return run

    _, second = overtake(start_and_finish, source, out)
    assert second.completed() is None
    assert second.audit().missing == [0, 1, 2]
