"""The object store on files: crashes, disk errors, and other files in its folder."""

import asyncio
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3seg.adapters import files
from s3seg.adapters.files import FileObjectStore
from s3seg.errors import NotFoundError, UnavailableError
from s3seg.testing import ObjectStoreSuite

pytestmark = pytest.mark.anyio
KEY = "users/u/images/0123.png"


class TestFileObjectStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return FileObjectStore(tmp_path / "objects", public_base="https://objects.example/files")


@pytest.fixture
def store(tmp_path):
    return FileObjectStore(tmp_path / "objects", public_base="https://x/files")


def files_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Crash(BaseException):
    """Stands for the process being killed."""


@pytest.mark.parametrize("step", ["fsync", "link"])
async def test_a_crash_in_the_middle_leaves_no_object(store, tmp_path, monkeypatch, step):
    def crash(*_):
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(os, step, crash)
        patched.setattr(files.Path, "unlink", lambda *_, **__: None)  # a killed process does not clean up
        with pytest.raises(Crash):
            await store.put(KEY, b"half")
    with pytest.raises(NotFoundError):
        await store.get(KEY)
    assert [info async for info in store.list("")] == []
    await store.put(KEY, b"whole")
    assert await store.get(KEY) == b"whole"
    assert len(files_under(tmp_path)) == 2
    assert await store.discard_partial_writes(datetime.now(UTC) - timedelta(days=1)) == 0
    assert await store.discard_partial_writes(datetime.now(UTC) + timedelta(days=1)) == 1
    assert files_under(tmp_path) == [f"objects/{KEY}"]


async def test_an_object_is_synced_before_it_gets_its_name(store, monkeypatch):
    calls = []
    for step in ("fsync", "link"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *args, real=real, step=step: (calls.append(step), real(*args)))
    await store.put(KEY, b"x")
    assert calls.index("fsync") < calls.index("link")
    assert calls[-1] == "fsync"  # the folder


async def test_a_full_disk_is_unavailable_and_leaves_no_partial_file(store, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UnavailableError, match="No space left"):
            await store.put(KEY, b"x" * 1000)
        with pytest.raises(UnavailableError, match="No space left"):
            await store.check()
    assert files_under(tmp_path) == []
    await store.put(KEY, b"x")


async def test_a_folder_that_cannot_be_created_is_unavailable(tmp_path):
    (tmp_path / "objects").write_text("in the way")
    store = FileObjectStore(tmp_path / "objects", public_base="https://x/files")
    with pytest.raises(UnavailableError):
        await store.check()
    with pytest.raises(UnavailableError):
        await store.put(KEY, b"x")
    with pytest.raises(NotFoundError):
        await store.get(KEY)


async def every_use_of(store):
    """Use the store in every way, and give the errors."""

    async def listed():
        return [info async for info in store.list("")]

    uses = [store.put(f"users/u/images/{os.urandom(4).hex()}.png", b"new"), store.get(KEY), store.stream(KEY),
            store.delete(KEY), listed(), store.discard_partial_writes(datetime.now(UTC)), store.check()]  # fmt: skip
    return [type(outcome) for outcome in await asyncio.gather(*uses, return_exceptions=True)]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_folder_that_is_deleted_or_replaced_is_noticed_and_not_made_again(store, tmp_path, replaced):
    await store.put(KEY, b"kept")
    (tmp_path / "objects").rename(tmp_path / "away")
    if replaced:
        (tmp_path / "objects").mkdir()
    assert await every_use_of(store) == [UnavailableError] * 7
    assert files_under(tmp_path) == [f"away/{KEY}"]
    if replaced:
        (tmp_path / "objects").rmdir()
    (tmp_path / "away").rename(tmp_path / "objects")
    assert await store.get(KEY) == b"kept"
    await store.check()


async def test_first_uploads_at_the_same_time_make_the_folder_together(store, tmp_path, monkeypatch):
    stat, other = Path.stat, "users/u/images/4567.png"

    def too_early(path, **options):
        if path == tmp_path / "objects":
            monkeypatch.setattr(Path, "stat", stat)
            store._put(other, path / other, b"another thread's")  # after the folder was looked for, before that is told
            raise FileNotFoundError(path)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", too_early)
    await store.put(KEY, b"first")
    assert [await store.get(key) for key in (KEY, other)] == [b"first", b"another thread's"]


async def test_a_store_that_is_closed_takes_the_folder_that_it_finds(store, tmp_path):
    await store.put(KEY, b"old")
    shutil.rmtree(tmp_path / "objects")
    await store.aclose()
    await store.check()
    with pytest.raises(NotFoundError):
        await store.get(KEY)


async def test_other_files_are_neither_listed_nor_read(store, tmp_path):
    await store.put(KEY, b"x")
    root = tmp_path / "objects"
    (root / "users" / "u" / ".DS_Store").write_text("x")
    (root / "users" / "u" / "notes.txt").write_text("x")
    (root / "secret.txt").write_text("x")
    assert [info.key async for info in store.list("")] == [KEY]
    with pytest.raises(NotFoundError):
        await store.get("users/u/notes.txt")
    with pytest.raises(NotFoundError):
        await store.get("users/u")


async def test_a_folder_with_the_name_of_an_object_is_not_an_object(store, tmp_path):
    (tmp_path / "objects" / KEY).mkdir(parents=True)
    with pytest.raises(NotFoundError):
        await store.get(KEY)
    with pytest.raises(NotFoundError):
        await store.stream(KEY)
    await store.delete(KEY)
    assert (tmp_path / "objects" / KEY).is_dir()


async def test_a_reader_that_stops_early_leaves_no_file_open(store):
    await store.put(KEY, b"x" * 3_000_000)
    stream = await store.stream(KEY)
    async for _ in stream.chunks:
        break
    if Path("/proc/self/fd").is_dir():
        assert not any(path.name == "0123.png" for path in open_files())


def open_files():
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists the folder
            yield link.readlink()
