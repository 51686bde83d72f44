"""Pictures and results in buckets, on a real S3 server."""

from __future__ import annotations

import random
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from s3seg.bulk import storage
from s3seg.bulk.job import carry_out
from s3seg.bulk.listing import list_pictures, source_of
from s3seg.bulk.results import Counts
from s3seg.bulk.run_folder import load, start
from s3seg.bulk.shard_job import ShardJob
from s3seg.bulk.storage import Folder, S3Access, read_picture
from s3seg.errors import ForbiddenError, ImageDecodeError, InvalidRequestError, UnavailableError
from tests.bulk.pretend import PretendEngine, PretendNetwork, names_of, request_for

if sys.platform != "linux":
    pytest.skip("the S3 server is not available for other systems", allow_module_level=True)

from tests.cloud.parts.faulty_proxy import faulty_proxy
from tests.cloud.parts.seaweed import (
    ACCESS_KEY,
    BUCKET,
    READER_ACCESS_KEY,
    READER_SECRET_KEY,
    SECRET_KEY,
    Bucket,
    seaweed,
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with seaweed(tmp_path_factory.mktemp("seaweed")) as made:
        yield made


@pytest.fixture
def s3(bucket: Bucket) -> S3Access:
    bucket.empty()
    return S3Access(bucket.endpoint, ACCESS_KEY, SECRET_KEY)


@pytest.fixture
def impatient(monkeypatch):
    """Try each request once: the faults are ours, and waiting would not help."""
    monkeypatch.setattr(storage, "_ATTEMPTS", 1)
    monkeypatch.setattr(storage, "_TIMEOUT_S", 1.0)
    storage._s3.cache_clear()
    yield
    storage._s3.cache_clear()


def put(bucket: Bucket, *keys: str) -> None:
    for key in keys:
        bucket.client.put_object(Bucket=BUCKET, Key=key, Body=b"picture")


def names(address: str, s3: S3Access) -> list[str]:
    return [one.uri.removeprefix(f"s3://{BUCKET}/") for one in list_pictures(source_of(address), s3)]


def test_a_prefix_gives_the_pictures_under_it_in_order(bucket, s3):
    put(bucket, "p/b.png", "p/a.jpg", "p/notes.md", "p/sub/c.png", "p/.hidden.png", "p2/d.png", "q.png")
    assert names(f"s3://{BUCKET}/p/", s3) == ["p/a.jpg", "p/b.png", "p/sub/c.png"]
    assert names(f"s3://{BUCKET}/p", s3) == ["p/a.jpg", "p/b.png", "p/sub/c.png"]
    assert names(f"s3://{BUCKET}", s3) == ["q.png", "p/a.jpg", "p/b.png", "p/sub/c.png", "p2/d.png"]
    assert names(f"s3://{BUCKET}/p/a", s3) == ["p/a.jpg"], "a prefix need not be a folder"
    assert names(f"s3://{BUCKET}/nothing/", s3) == []


def test_a_pattern_gives_what_matches_it(bucket, s3):
    put(bucket, "p/b.png", "p/a.jpg", "p/sub/c.png", "q/d.png")
    assert names(f"s3://{BUCKET}/p/*.png", s3) == ["p/b.png"]
    assert names(f"s3://{BUCKET}/*/*.png", s3) == ["p/b.png", "q/d.png"]
    assert names(f"s3://{BUCKET}/p/**/*.png", s3) == ["p/b.png", "p/sub/c.png"]


def test_a_listed_object_has_its_size_and_time(bucket, s3):
    put(bucket, "p/a.jpg")
    (one,) = list_pictures(f"s3://{BUCKET}/p", s3)
    assert one.size == 7
    assert one.modified_ns is not None


@pytest.mark.parametrize("name", ["list.txt", "list.parquet"])
def test_a_list_may_be_in_a_bucket(bucket, s3, name):
    uris = [f"s3://{BUCKET}/p/a b.png", "/local.png"]
    content = "\n".join(uris).encode()
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table({"uri": uris}), sink)
        content = sink.getvalue().to_pybytes()
    bucket.client.put_object(Bucket=BUCKET, Key=name, Body=content)
    assert [one.uri for one in list_pictures(f"s3://{BUCKET}/{name}", s3)] == uris
    with pytest.raises(InvalidRequestError, match="no such object"):
        names(f"s3://{BUCKET}/other-{name}", s3)


def test_an_object_is_read_and_one_that_is_missing_or_too_long_is_an_error_of_the_picture(bucket, s3):
    put(bucket, "p/ä b#c%20.png")
    address = f"s3://{BUCKET}/p/ä b#c%20.png"
    assert read_picture(address, s3) == b"picture"
    with pytest.raises(ImageDecodeError, match="more than the 6 bytes"):
        read_picture(address, s3, max_bytes=6)
    with pytest.raises(ImageDecodeError, match="no such object"):
        read_picture(f"s3://{BUCKET}/p/none.png", s3)


def test_a_file_is_written_and_replaced_and_listed(s3):
    out = Folder.at(f"s3://{BUCKET}/out/", s3)
    assert out.read("run.json") is None
    assert out.sizes("results") == {}
    out.write("results/a", b"first")
    out.write("results/a", b"second")
    assert (out.read("results/a"), out.sizes("results")) == (b"second", {"a": 6})


def test_a_key_that_may_not_write_is_refused_with_a_sentence_and_without_the_secret(bucket, s3):
    reader = S3Access(bucket.endpoint, READER_ACCESS_KEY, READER_SECRET_KEY)
    with pytest.raises(ForbiddenError, match="does not allow this with the access key") as error:
        Folder.at(f"s3://{BUCKET}/out", reader).write("x", b"y")
    assert READER_SECRET_KEY not in str(error.value)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_not_there_is_told():
    nowhere = S3Access("http://127.0.0.1:9", "key", "secret")
    with pytest.raises(UnavailableError, match="did not answer as it should"):
        read_picture(f"s3://{BUCKET}/a.png", nowhere)
    with pytest.raises(UnavailableError, match="did not answer as it should"):
        Folder.at(f"s3://{BUCKET}/out", nowhere).write("x", b"y")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seed", range(2))
def test_whatever_the_server_does_each_picture_has_one_result_in_the_end_and_none_failed(bucket, s3, seed):
    put(bucket, *(f"p/{k:03d}.png" for k in range(10)))
    draw, network, ends = random.Random(seed), PretendNetwork(), []
    with faulty_proxy(bucket.endpoint) as proxy:
        access = S3Access(proxy.url, ACCESS_KEY, SECRET_KEY)
        source, out = f"s3://{BUCKET}/p", Folder.at(f"s3://{BUCKET}/out", access)

        def run():
            made = start(out, source, request_for(), pictures=lambda: list_pictures(source, access), shard_rows=2)
            return carry_out(
                ShardJob(run=made, s3=access, load=lambda request, device: network), lambda: PretendEngine()
            )

        for _ in range(8):
            proxy.plan = draw.choices(["pass", "503", "cut", "lost"], weights=[5, 1, 1, 1], k=40)
            try:
                ends.append(run())
            except UnavailableError as err:
                ends.append(str(err))
        proxy.plan = []
        assert run() == Counts(10, 0, 20), ends
    assert any(isinstance(end, str) for end in ends), "the faults were to be noticed"
    assert names_of(load(Folder.at(f"s3://{BUCKET}/out", s3))) == [f"{k:03d}.png" for k in range(10)]


def test_a_run_from_bucket_to_bucket(bucket, s3):
    put(bucket, *(f"p/{k:03d}.png" for k in range(10)))
    source, out, network = f"s3://{BUCKET}/p", Folder.at(f"s3://{BUCKET}/out", s3), PretendNetwork()

    def job():
        run = start(out, source, request_for(), pictures=lambda: list_pictures(source, s3), shard_rows=4)
        return ShardJob(run=run, s3=s3, load=lambda request, device: network)

    with pytest.raises(KeyboardInterrupt):
        carry_out(job(), lambda: PretendEngine(stop_after=1))
    assert carry_out(job(), PretendEngine).rows == 10
    assert sorted(network.read) == names_of(load(out)) == [f"{k:03d}.png" for k in range(10)]
    assert all(ACCESS_KEY not in content for content in (str(out), (out.read("run.json") or b"").decode()))
