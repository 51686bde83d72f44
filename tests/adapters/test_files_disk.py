"""What is particular to files: crashes, bad disks, strangers in the folder."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3seg.adapters import files
from s3seg.adapters.files import FileObjectStore
from s3seg.errors import NotFoundError, UnavailableError

pytestmark = pytest.mark.anyio
KEY = "users/u/images/0123.png"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def store(tmp_path):
    return FileObjectStore(tmp_path / "objects", public_base="https://x/files")


def files_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Crash(BaseException):
    """As if the process had been killed."""


@pytest.mark.parametrize("step", ["fsync", "link"])
async def test_a_crash_in_the_middle_leaves_no_object(store, tmp_path, monkeypatch, step):
    def crash(*_):
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(os, step, crash)
        patched.setattr(files.Path, "unlink", lambda *_, **__: None)  # the dead tidy nothing up
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


async def test_the_object_is_synced_before_it_has_a_name(store, monkeypatch):
    order = []
    for step in ("fsync", "link"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *args, real=real, step=step: (order.append(step), real(*args)))
    await store.put(KEY, b"x")
    assert order.index("fsync") < order.index("link")
    assert order[-1] == "fsync"  # the folder


async def test_a_full_disk_is_unavailable_and_leaves_no_litter(store, tmp_path, monkeypatch):
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


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "objects").write_text("in the way")
    store = FileObjectStore(tmp_path / "objects", public_base="https://x/files")
    with pytest.raises(UnavailableError):
        await store.check()
    with pytest.raises(UnavailableError):
        await store.put(KEY, b"x")
    with pytest.raises(NotFoundError):
        await store.get(KEY)


async def test_what_is_not_ours_is_neither_listed_nor_served(store, tmp_path):
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


async def test_a_folder_named_like_an_object_is_no_object(store, tmp_path):
    (tmp_path / "objects" / KEY).mkdir(parents=True)
    with pytest.raises(NotFoundError):
        await store.get(KEY)
    with pytest.raises(NotFoundError):
        await store.stream(KEY)
    await store.delete(KEY)
    assert (tmp_path / "objects" / KEY).is_dir()


async def test_a_reader_who_goes_away_leaves_no_file_open(store):
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
