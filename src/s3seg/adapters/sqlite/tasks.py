"""The task store on SQLite."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from s3seg.adapters.sqlite import accounts, counts, retention, rows
from s3seg.adapters.sqlite.database import Database
from s3seg.adapters.sqlite.policy import Policy, record_public_base, require_same_public_base
from s3seg.errors import ForbiddenError, InvalidRequestError, NotFoundError
from s3seg.tasks import state_machine
from s3seg.tasks.concepts import require_room
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.object_keys import key_of_url
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import (
    Account,
    Concept,
    Cursor,
    Identity,
    LedgerEntry,
    NewImage,
    Project,
    ProjectPage,
    StoredImage,
    Submitted,
    TaskPage,
    from_microseconds,
    microseconds,
)


class SqliteTaskStore:
    """A `TaskStore` in an SQLite file, which the processes of edge and gpu service share."""

    def __init__(self, database: Database, *, policy: Policy | None = None) -> None:
        self._db = database
        self._policy = policy or Policy()
        self._polled = rows.KnownTasks()

    async def account(self, caller: Identity) -> Account:
        """Return the caller's account, and create it if it does not exist."""
        found = await self._db.read_inline(lambda db: accounts.open_account(db, caller.user_id, policy=self._policy))
        return found or await self._db.write(lambda db: self._ensure(db, caller))

    async def register_image(self, caller: Identity, image: NewImage) -> StoredImage:
        """Register a stored object as one of the caller's images."""
        _refuse_anonymous(caller)
        stored = StoredImage.of(
            image,
            caller.user_id,
            public_base=self._policy.public_base,
            now=self._policy.now(),
            retention_s=self._policy.rules.retention_s,
        )

        def work(db: sqlite3.Connection) -> StoredImage:
            self._ensure(db, caller)
            _require_project(db, caller, image.project_id)
            if rows.find_image(db, "object_key", image.object_key) is not None:
                raise InvalidRequestError("the object key is already registered")
            rows.insert_image(db, stored)
            return stored

        return await self._db.write(work)

    async def get_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Return the caller's image with this id, or raise NotFoundError."""
        return await self._db.read(lambda db: _own_image(db, caller, image_id, now=self._policy.now()))

    async def find_image(self, caller: Identity, object_key: str) -> StoredImage | None:
        """Return the caller's image with this object key, or None."""
        image = await self._db.read(lambda db: rows.find_image(db, "object_key", object_key))
        own = image is not None and image.user_id == caller.user_id and not image.expired(self._policy.now())
        return image if own else None

    async def list_images(
        self, caller: Identity, *, limit: int = 20, after: Cursor | None = None
    ) -> Sequence[StoredImage]:
        """Return up to ``limit`` of the caller's images, newest first."""
        place = (1 << 62, "") if after is None else (microseconds(after.created_at), after.item_id)
        where = """
            WHERE user_id = ? AND (created_at, image_id) < (?, ?) AND (expires_at IS NULL OR expires_at > ?)
            ORDER BY created_at DESC, image_id DESC LIMIT ?
        """
        values = (caller.user_id, *place, microseconds(self._policy.now()), limit)
        return await self._db.read(lambda db: rows.select_images(db, where, values))

    async def credit_history(self, caller: Identity, *, limit: int = 100, offset: int = 0) -> Sequence[LedgerEntry]:
        """Return up to ``limit`` changes of the caller's credits, oldest first."""
        return await self._db.read(lambda db: accounts.select_ledger(db, caller.user_id, limit=limit, offset=offset))

    async def close_account(self, caller: Identity) -> datetime:
        """Mark the caller's account as deleted."""
        closed_at = await self._db.read(lambda db: retention.closed_at(db, caller.user_id))
        if closed_at is not None:  # a repeat does not write
            return from_microseconds(closed_at)
        return await self._db.write(lambda db: rows.close_account(db, caller.user_id, policy=self._policy))

    async def delete_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Delete an image and cancel its tasks that have not ended, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> StoredImage:
            image = _own_image(db, caller, image_id, now=self._policy.now())
            live = "WHERE t.image_id = ? AND t.status IN ('pending', 'processing')"
            for task in rows.select_tasks(db, live, (image_id,)):
                self._cancel(db, task)
            db.execute("DELETE FROM images WHERE image_id = ?", (image_id,))
            return image

        return await self._db.write(work)

    async def submit(self, caller: Identity, request: TaskRequest) -> Submitted:
        """Create a task and debit its credits, or return the task of an equal request with the same key."""
        _refuse_anonymous(caller)

        def work(db: sqlite3.Connection) -> Submitted | RateDecision:
            account, now = self._ensure(db, caller), self._policy.now()
            repeat = _repeat_of(db, caller, request, now=now)
            if repeat is not None:
                return Submitted(task=repeat, created=False, rate=None)
            if request.idempotency_key is not None:  # of a task whose time is over, and which was not collected yet
                db.execute(
                    "UPDATE tasks SET idempotency_key = NULL WHERE user_id = ? AND idempotency_key = ?",
                    (caller.user_id, request.idempotency_key),
                )
            rate = self._count_submit(db, caller, account.tier)
            if not rate.allowed:
                return rate  # rather than raise: `counts.take` may have corrected times of a clock that was reset
            # every error from here on rolls the count back
            image = self._find_image(db, request.image_url)
            if image is None or image.user_id != caller.user_id or image.expired(now):
                raise InvalidRequestError("image_url is not one of your uploads")
            _require_project(db, caller, request.project_id)
            task = state_machine.admit(
                request,
                task_id=str(uuid.uuid4()),
                user_id=caller.user_id,
                image_id=image.image_id,
                credits=account.credits,
                rules=self._policy.rules,
                now=now,
            )
            accounts.book(db, caller.user_id, -task.cost, "segment", task_id=task.task_id, now=now)
            rows.insert_task(db, task, idempotency_key=request.idempotency_key, fingerprint=request.fingerprint)
            return Submitted(task=task, created=True, rate=rate)

        answer = await self._db.write(work)
        if isinstance(answer, Submitted):
            return answer
        answer.require()
        raise AssertionError("a submit that is not refused returns a task")

    def _find_image(self, db: sqlite3.Connection, url: str) -> StoredImage | None:
        """Return the image of a URL: the one that its upload was told, or the one that it would be told today."""
        image = rows.find_image(db, "image_url", url)
        if image is None and (key := key_of_url(self._policy.public_base, url)) is not None:
            return rows.find_image(db, "object_key", key)
        return image

    async def find_repeat(self, caller: Identity, request: TaskRequest) -> Task | None:
        """Return the task of an earlier, equal request with the same key, or None."""
        return await self._db.read(lambda db: _repeat_of(db, caller, request, now=self._policy.now()))

    async def get_task(self, caller: Identity, task_id: str) -> Task:
        """Return the caller's task with this id, or raise NotFoundError."""
        now, known = self._policy.now(), self._polled
        return await self._db.read_inline(lambda db: _own_task(db, caller, task_id, now=now, known=known))

    async def list_tasks(
        self,
        caller: Identity,
        *,
        project_id: str | None = None,
        page: int = 1,
        limit: int = 20,
        after: Cursor | None = None,
    ) -> TaskPage:
        """Return one page of the caller's tasks, newest first."""
        where, values = "user_id = ?", [caller.user_id]
        if project_id is not None:
            where, values = "project_id = ? AND user_id = ?", [rows.bindable(project_id), caller.user_id]
        place: tuple[object, ...] = ()
        seek, offset = "", (page - 1) * limit
        if after is not None:
            seek, offset = "AND (created_at, task_id) < (?, ?)", 0
            place = (microseconds(after.created_at), after.item_id)

        now = microseconds(self._policy.now())

        def work(db: sqlite3.Connection) -> tuple[list[Task], int]:
            # usually 0: what has ended is collected every minute
            ended = db.execute(f"SELECT count(*) FROM tasks WHERE expires_at <= ? AND {where}", (now, *values))  # noqa: S608
            hidden = ended.fetchone()[0]
            live, until = ("AND (expires_at IS NULL OR expires_at > ?)", [now]) if hidden else ("", [])
            # rows before the page are skipped in the index; only those of the page are read from the table
            shown = f"""
                WHERE t.rowid IN (
                    SELECT rowid FROM tasks WHERE {where} {seek} {live}
                    ORDER BY created_at DESC, task_id DESC LIMIT ? OFFSET ?)
                ORDER BY t.created_at DESC, t.task_id DESC
            """  # noqa: S608  (constants only; values are bound)
            table = "accounts" if project_id is None else "projects"
            total = db.execute(f"SELECT tasks FROM {table} WHERE {where}", values).fetchone()  # noqa: S608
            tasks = rows.select_tasks(db, shown, (*values, *place, *until, limit + 1, offset))
            return tasks, total[0] - hidden if total else 0

        found, total = await self._db.read(work)
        tasks, more = found[:limit], len(found) > limit
        cursor = Cursor(created_at=tasks[-1].created_at, item_id=tasks[-1].task_id) if more else None
        return TaskPage(tasks=tuple(tasks), total=total, next_cursor=cursor)

    async def cancel(self, caller: Identity, task_id: str) -> Task:
        """Cancel and refund a task, or return it unchanged if it has ended."""
        return await self._db.write(lambda db: self._cancel(db, _own_task(db, caller, task_id, now=self._policy.now())))

    async def delete_task(self, caller: Identity, task_id: str) -> Task:
        """Delete a task, after cancelling it if it has not ended, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> Task:
            task = self._cancel(db, _own_task(db, caller, task_id, now=self._policy.now()))
            db.execute("DELETE FROM tasks WHERE task_id = ?", (task_id,))
            return task

        return await self._db.write(work)

    async def create_project(self, caller: Identity, name: str) -> Project:
        """Create a project."""
        _refuse_anonymous(caller)
        now = self._policy.now()
        project = Project(
            project_id=str(uuid.uuid4()), user_id=caller.user_id, name=name, created_at=now, updated_at=now
        )

        def work(db: sqlite3.Connection) -> Project:
            self._ensure(db, caller)
            db.execute(
                "INSERT INTO projects (project_id, user_id, name, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
                (project.project_id, caller.user_id, name, microseconds(now), microseconds(now)),
            )
            return project

        return await self._db.write(work)

    async def get_project(self, caller: Identity, project_id: str) -> Project:
        """Return the caller's project with this id, or raise NotFoundError."""
        return await self._db.read(lambda db: _own_project(db, caller, project_id))

    async def list_projects(self, caller: Identity, *, page: int = 1, limit: int = 20) -> ProjectPage:
        """Return one page of the caller's projects, newest first."""

        def work(db: sqlite3.Connection) -> ProjectPage:
            found = rows.select_projects(
                db,
                "WHERE user_id = ? ORDER BY created_at DESC, project_id DESC LIMIT ? OFFSET ?",
                (caller.user_id, limit, (page - 1) * limit),
            )
            count = "SELECT count(*) FROM projects WHERE user_id = ?"
            return ProjectPage(projects=tuple(found), total=db.execute(count, (caller.user_id,)).fetchone()[0])

        return await self._db.read(work)

    async def rename_project(self, caller: Identity, project_id: str, name: str) -> Project:
        """Rename a project, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> Project:
            _own_project(db, caller, project_id)
            db.execute(
                "UPDATE projects SET name = ?, updated_at = ? WHERE project_id = ?",
                (name, microseconds(self._policy.now()), project_id),
            )
            return _own_project(db, caller, project_id)

        return await self._db.write(work)

    async def delete_project(self, caller: Identity, project_id: str) -> None:
        """Delete a project and keep its images and tasks, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> None:
            _own_project(db, caller, project_id)
            db.execute("DELETE FROM projects WHERE project_id = ?", (project_id,))

        await self._db.write(work)

    async def create_concept(self, caller: Identity, name: str, definition: Mapping[str, Any]) -> Concept:
        """Store a concept."""
        _refuse_anonymous(caller)
        concept = Concept(
            concept_id=str(uuid.uuid4()),
            user_id=caller.user_id,
            name=name,
            definition=definition,
            created_at=self._policy.now(),
        )

        def work(db: sqlite3.Connection) -> Concept:
            self._ensure(db, caller)
            require_room(db.execute("SELECT count(*) FROM concepts WHERE user_id = ?", (caller.user_id,)).fetchone()[0])
            db.execute(
                "INSERT INTO concepts VALUES (?, ?, ?, ?, ?)",
                (concept.concept_id, caller.user_id, name, json.dumps(definition), microseconds(concept.created_at)),
            )
            return concept

        return await self._db.write(work)

    async def get_concept(self, caller: Identity, concept_id: str) -> Concept:
        """Return the caller's concept with this id, or raise NotFoundError."""
        return await self._db.read(lambda db: _own_concept(db, caller, concept_id))

    async def list_concepts(self, caller: Identity) -> Sequence[Concept]:
        """Return all concepts of the caller, newest first."""
        where = "WHERE user_id = ? ORDER BY created_at DESC, concept_id DESC"
        return tuple(await self._db.read(lambda db: rows.select_concepts(db, where, (caller.user_id,))))

    async def delete_concept(self, caller: Identity, concept_id: str) -> None:
        """Delete a concept, or raise NotFoundError."""

        def work(db: sqlite3.Connection) -> None:
            _own_concept(db, caller, concept_id)
            db.execute("DELETE FROM concepts WHERE concept_id = ?", (concept_id,))

        await self._db.write(work)

    async def announce(self) -> None:
        """Record the public base URL of this process, the edge, so that workers can compare theirs with it."""
        await self._db.write(lambda db: record_public_base(db, self._policy.public_base))

    async def check(self) -> None:
        """Check that the database file is writable, and that no other edge has announced another public base URL."""
        await self._db.check()
        await self._db.read(lambda db: require_same_public_base(db, self._policy.public_base))

    async def aclose(self) -> None:
        """Close the database, after pending work has finished."""
        await self._db.aclose()

    def _ensure(self, db: sqlite3.Connection, caller: Identity) -> Account:
        return accounts.ensure_account(db, caller.user_id, caller.tier, policy=self._policy, now=self._policy.now())

    def _cancel(self, db: sqlite3.Connection, task: Task) -> Task:
        now = self._policy.now()
        return rows.save_move(db, task, state_machine.cancel(task, now=now), now=now)

    def _count_submit(self, db: sqlite3.Connection, caller: Identity, tier: Tier) -> RateDecision:
        limit = self._policy.rates[tier][Action.SEGMENT]
        return counts.take(db, caller.user_id, Action.SEGMENT, limit=limit, now=self._policy.clock())


def _refuse_anonymous(caller: Identity) -> None:
    if caller.anonymous:
        raise ForbiddenError("anonymous users may not do this; sign in")


def _require_project(db: sqlite3.Connection, caller: Identity, project_id: str | None) -> None:
    if project_id is None:
        return
    try:
        _own_project(db, caller, project_id)
    except NotFoundError:
        raise InvalidRequestError("project_id is not one of your projects") from None


def _own_project(db: sqlite3.Connection, caller: Identity, project_id: str) -> Project:
    found = rows.select_projects(
        db, "WHERE project_id = ? AND user_id = ?", (rows.bindable(project_id), caller.user_id)
    )
    if not found:
        raise NotFoundError("no such project")
    return found[0]


def _own_concept(db: sqlite3.Connection, caller: Identity, concept_id: str) -> Concept:
    found = rows.select_concepts(
        db, "WHERE concept_id = ? AND user_id = ?", (rows.bindable(concept_id), caller.user_id)
    )
    if not found:
        raise NotFoundError("no such concept")
    return found[0]


def _own_image(db: sqlite3.Connection, caller: Identity, image_id: str, *, now: datetime) -> StoredImage:
    image = rows.find_image(db, "image_id", image_id)
    if image is None or image.user_id != caller.user_id or image.expired(now):
        raise NotFoundError("no such image")
    return image


def _own_task(
    db: sqlite3.Connection, caller: Identity, task_id: str, *, now: datetime, known: rows.KnownTasks | None = None
) -> Task:
    task = rows.find_task(db, task_id, known=known)
    if task is None or task.user_id != caller.user_id or task.expired(now):
        raise NotFoundError("no such task")
    return task


def _repeat_of(db: sqlite3.Connection, caller: Identity, request: TaskRequest, *, now: datetime) -> Task | None:
    if request.idempotency_key is None:
        return None
    found = db.execute(
        "SELECT task_id, fingerprint FROM tasks WHERE user_id = ? AND idempotency_key = ?"
        " AND (expires_at IS NULL OR expires_at > ?)",
        (caller.user_id, request.idempotency_key, microseconds(now)),
    ).fetchone()
    if found is None:
        return None
    if found[1] != request.fingerprint:
        raise InvalidRequestError("Idempotency-Key was used for another request")
    return rows.find_task(db, found[0])
