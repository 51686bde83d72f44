"""Backup while the service runs, and restore into an empty place."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from s3seg.app import Parts
from s3seg.app.backup import back_up, restore
from s3seg.app.settings import Settings
from s3seg.errors import ConfigurationError, InvalidRequestError, UnavailableError
from tests.helpers.pictures import encoded
from tests.helpers.running_edge import Running, User

pytestmark = pytest.mark.anyio


async def upload(user: User) -> str:
    answer = await user("POST", "/api/v1/upload", files={"file": ("a.png", encoded(), "image/png")})
    return answer.json()["data"]["image_url"]


async def submit(user: User, image_url: str) -> str:
    answer = await user("POST", "/api/v1/segment", json={"image_url": image_url, "text_prompts": ["cat"]})
    return answer.json()["data"]["task_id"]


@pytest.fixture
async def service(tmp_path: Path):
    running = Running(tmp_path / "data")
    yield running
    await running.aclose()


async def test_a_restored_installation_goes_on(service: Running, tmp_path: Path) -> None:
    ann = await service.user(credits=1000)
    image = await upload(ann)
    done, waiting = await submit(ann, image), await submit(ann, image)
    await service.finish(done)
    busy = True

    async def keep_writing() -> None:
        while busy:
            await submit(ann, await upload(ann))

    writing = asyncio.create_task(keep_writing())
    info = await back_up(service.parts, tmp_path / "backup")
    assert info.public_base_url == service.settings.public_base_url
    busy = False
    await writing
    assert (info.missing, info.tasks >= 2) == (0, True)
    after = Running(tmp_path / "elsewhere")
    restored = await restore(after.parts, tmp_path / "backup")
    assert restored == info
    again = User(after, ann.token)  # the old token, signed with the old key
    assert (await again("GET", f"/api/v1/tasks/{done}")).json()["data"]["status"] == "done"
    assert (await again("GET", image.removeprefix("http://127.0.0.1:8000"))).content == encoded()
    await after.finish(waiting)  # a worker claims what waited
    assert (await again("GET", f"/api/v1/tasks/{waiting}")).json()["data"]["status"] == "done"
    new = await submit(again, await upload(again))
    assert (await again("GET", f"/api/v1/tasks/{new}")).json()["data"]["status"] == "pending"
    credits = (await again("GET", "/api/v1/me")).json()["data"]["credits"]
    assert credits == 1000 - info.tasks - 1
    await after.aclose()


async def test_a_later_backup_copies_only_what_is_new_and_forgets_what_is_gone(
    service: Running, tmp_path: Path
) -> None:
    ann = await service.user()
    first = await upload(ann)
    await back_up(service.parts, tmp_path / "backup")
    await upload(ann)
    copied: list[int] = []
    info = await back_up(service.parts, tmp_path / "backup", progress=copied.append)
    assert (copied, info.objects) == ([1], 2)
    key = service.parts.objects.key_of(first)
    assert key is not None
    await service.parts.objects.delete(key)
    info = await back_up(service.parts, tmp_path / "backup")
    assert (info.objects, info.missing) == (2, 1), "its row is still there, and the backup says so"
    assert not (tmp_path / "backup" / "objects" / key).exists(), "deleted means deleted"


async def test_a_backup_is_private(service: Running, tmp_path: Path) -> None:
    await upload(await service.user())
    previous = os.umask(0)
    try:
        await back_up(service.parts, tmp_path / "backup")
    finally:
        os.umask(previous)
    for path in [tmp_path / "backup", *(tmp_path / "backup").rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_an_interrupted_restore_can_be_repeated(service: Running, tmp_path: Path, monkeypatch) -> None:
    ann = await service.user()
    images = [await upload(ann) for _ in range(3)]
    await back_up(service.parts, tmp_path / "backup")
    after = Running(tmp_path / "elsewhere")
    put, puts = after.parts.objects.put, 0

    async def failing(key: str, body: bytes):
        nonlocal puts
        puts += 1
        if puts == 2:
            raise UnavailableError("the disk is full")
        return await put(key, body)

    monkeypatch.setattr(after.parts.objects, "put", failing)
    with pytest.raises(UnavailableError, match="disk is full"):
        await restore(after.parts, tmp_path / "backup")
    assert not (tmp_path / "elsewhere" / "tasks.sqlite3").exists(), "nothing that a service could start on"
    await restore(after.parts, tmp_path / "backup")
    again = User(after, ann.token)
    for image in images:
        assert (await again("GET", image.removeprefix("http://127.0.0.1:8000"))).status_code == 200
    await after.aclose()


async def test_a_killed_backup_leaves_the_earlier_one_usable(service: Running, tmp_path: Path, monkeypatch) -> None:
    ann = await service.user()
    await upload(ann)
    earlier = await back_up(service.parts, tmp_path / "backup")
    await upload(ann)
    monkeypatch.setattr("s3seg.app.backup._copy_file", lambda source, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        await back_up(service.parts, tmp_path / "backup")
    monkeypatch.undo()
    after = Running(tmp_path / "elsewhere")
    assert await restore(after.parts, tmp_path / "backup") == earlier
    await after.aclose()


async def test_nothing_is_overwritten(service: Running, tmp_path: Path) -> None:
    await service.user()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidRequestError, match="neither empty nor a backup"):
        await back_up(service.parts, tmp_path / "other")
    await back_up(service.parts, tmp_path / "backup")
    with pytest.raises(InvalidRequestError, match="exists; restore into an empty"):
        await restore(service.parts, tmp_path / "backup")
    after = Running(tmp_path / "elsewhere")
    key = tmp_path / "elsewhere" / "auth" / "signing-key.pem"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"another")
    with pytest.raises(InvalidRequestError, match="not the signing key of the backup"):
        await restore(after.parts, tmp_path / "backup")
    await after.aclose()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda backup: (backup / "backup.json").unlink(), "not a complete backup"),
        (lambda backup: (backup / "backup.json").write_text("{"), "damaged"),
        (lambda backup: (backup / "backup.json").write_text('{"format": 9, "s3seg": "7.0"}'), "by s3seg 7.0"),
        (lambda backup: (backup / "tasks.sqlite3").write_bytes(b"no database" * 99), "damaged"),
        (lambda backup: (backup / "tasks.sqlite3").unlink(), "damaged"),
    ],
    ids=["unfinished", "cut short", "newer", "spoilt", "without database"],
)
async def test_a_spoilt_backup_is_refused(service: Running, tmp_path: Path, spoil, expected: str) -> None:
    await service.user()
    await back_up(service.parts, tmp_path / "backup")
    spoil(tmp_path / "backup")
    after = Running(tmp_path / "elsewhere")
    with pytest.raises(InvalidRequestError, match=expected):
        await restore(after.parts, tmp_path / "backup")
    assert not (tmp_path / "elsewhere" / "tasks.sqlite3").exists()
    await after.aclose()


async def test_a_backup_is_one_plain_database_file(service: Running, tmp_path: Path) -> None:
    ann = await service.user()
    await submit(ann, await upload(ann))
    await back_up(service.parts, tmp_path / "backup")
    assert not list((tmp_path / "backup").glob("*-wal"))
    with sqlite3.connect(tmp_path / "backup" / "tasks.sqlite3") as db:
        assert db.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    db.close()


async def test_the_log_of_another_database_is_not_applied_to_the_restored_one(service: Running, tmp_path: Path) -> None:
    ann = await service.user(credits=1000)
    image = await upload(ann)
    await submit(ann, image)
    info = await back_up(service.parts, tmp_path / "backup")
    for _ in range(3):
        await submit(ann, image)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    log = folder / "tasks.sqlite3-wal"  # as a crash leaves it, whose operator then removes the database only
    log.write_bytes((service.settings.data_dir / log.name).read_bytes())
    assert log.stat().st_size > 0
    settings = Settings(data_dir=folder, public_base_url=service.settings.public_base_url)
    with pytest.raises(InvalidRequestError, match=r"tasks\.sqlite3-wal exists"):
        await restore(Parts(settings), tmp_path / "backup")
    log.unlink()
    assert await restore(Parts(settings), tmp_path / "backup") == info
    with sqlite3.connect(folder / "tasks.sqlite3") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    db.close()


async def test_other_databases_are_backed_up_elsewhere(tmp_path: Path) -> None:
    parts = Parts(Settings(_env_file=None, data_dir=tmp_path, task_store="memory"))  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="only installations with their tasks in SQLite"):
        await back_up(parts, tmp_path / "backup")
    await parts.aclose()


async def test_the_base_url_is_that_of_the_edge_not_of_the_command(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")  # type: ignore[call-arg]
    edge = Parts(settings.model_copy(update={"public_base_url": "https://me.example/files"}))
    await edge.announce()
    await edge.aclose()
    command = Parts(settings)
    info = await back_up(command, tmp_path / "backup")
    await command.aclose()
    assert info.public_base_url == "https://me.example/files"
