"""The task store in memory.

No method awaits anything between reading and writing, so each is one transaction on its event loop.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from s3seg.adapters.memory import retention
from s3seg.adapters.memory.tables import MemoryTables
from s3seg.errors import ForbiddenError, InvalidRequestError, NotFoundError
from s3seg.tasks import state_machine
from s3seg.tasks.concepts import require_room
from s3seg.tasks.limits import Action
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.object_keys import key_of_url
from s3seg.tasks.rate_limit import take
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
)

_Row = TypeVar("_Row", Concept, StoredImage, Project, Task)
_ExpiringRow = TypeVar("_ExpiringRow", StoredImage, Task)


class MemoryTaskStore:
    """A `TaskStore` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._t = tables

    async def account(self, caller: Identity) -> Account:
        """Return the caller's account, and create it if it does not exist."""
        return self._t.ensure(caller.user_id, caller.tier)

    async def register_image(self, caller: Identity, image: NewImage) -> StoredImage:
        """Register a stored object as one of the caller's images."""
        _refuse_anonymous(caller)
        stored = StoredImage.of(
            image,
            caller.user_id,
            public_base=self._t.public_base,
            now=self._t.now(),
            retention_s=self._t.rules.retention_s,
        )
        if any(known.object_key == image.object_key for known in self._t.images.values()):
            raise InvalidRequestError("the object key is already registered")
        self._require_project(caller, image.project_id)
        self._t.ensure(caller.user_id, caller.tier)
        self._t.images[stored.image_id] = stored
        return stored

    async def get_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Return the caller's image with this id, or raise NotFoundError."""
        return self._own(self._t.images.get(image_id), caller, "image")

    async def find_image(self, caller: Identity, object_key: str) -> StoredImage | None:
        """Return the caller's image with this object key, or None."""
        own = (image for image in self._t.images.values() if image.user_id == caller.user_id)
        return next((image for image in own if image.object_key == object_key and not self._expired(image)), None)

    async def list_images(
        self, caller: Identity, *, limit: int = 20, after: Cursor | None = None
    ) -> Sequence[StoredImage]:
        """Return up to ``limit`` of the caller's images, newest first."""
        own = [one for one in self._t.images.values() if one.user_id == caller.user_id and not self._expired(one)]
        if after is not None:
            own = [one for one in own if (one.created_at, one.image_id) < (after.created_at, after.item_id)]
        return sorted(own, key=lambda one: (one.created_at, one.image_id), reverse=True)[:limit]

    async def credit_history(self, caller: Identity, *, limit: int = 100, offset: int = 0) -> Sequence[LedgerEntry]:
        """Return up to ``limit`` changes of the caller's credits, oldest first."""
        return [entry for entry in self._t.ledger if entry.user_id == caller.user_id][offset : offset + limit]

    async def close_account(self, caller: Identity) -> datetime:
        """Mark the caller's account as deleted."""
        return retention.close(self._t, caller.user_id)

    async def delete_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Delete an image and cancel its tasks that have not ended, or raise NotFoundError."""
        image = self._own(self._t.images.get(image_id), caller, "image")
        for task in [task for task in self._t.tasks.values() if task.image_id == image_id]:
            self._t.save(task, state_machine.cancel(task, now=self._t.now()))
        self._t.forget_image(image_id)
        return image

    async def submit(self, caller: Identity, request: TaskRequest) -> Submitted:
        """Create a task and debit its credits, or return the task of an equal request with the same key."""
        _refuse_anonymous(caller)
        account = self._t.ensure(caller.user_id, caller.tier)
        repeat = self._repeat_of(caller, request)
        if repeat is not None:
            return Submitted(task=repeat, created=False, rate=None)
        now = self._t.now()
        limit = self._t.rates[account.tier][Action.SEGMENT]
        rate, submits = take(Action.SEGMENT, self._t.submits.get(caller.user_id, ()), limit=limit, now=self._t.clock())
        if not rate.allowed:
            self._t.submits[caller.user_id] = submits  # corrected if the clock was reset
        rate.require()
        image = self._find_image(request.image_url)
        if image is None or image.user_id != caller.user_id:
            raise InvalidRequestError("image_url is not one of your uploads")
        self._require_project(caller, request.project_id)
        task = state_machine.admit(
            request,
            task_id=str(uuid.uuid4()),
            user_id=caller.user_id,
            image_id=image.image_id,
            credits=account.credits,
            rules=self._t.rules,
            now=now,
        )
        self._t.book(caller.user_id, -task.cost, "segment", task.task_id)
        self._t.tasks[task.task_id] = task
        self._t.submits[caller.user_id] = submits
        if request.idempotency_key is not None:
            self._t.idempotency_keys[caller.user_id, request.idempotency_key] = (request.fingerprint, task.task_id)
        return Submitted(task=task, created=True, rate=rate)

    def _find_image(self, url: str) -> StoredImage | None:
        """Return the image of a URL: the one that its upload was told, or the one that it would be told today."""
        key = key_of_url(self._t.public_base, url)
        known = (one for one in self._t.images.values() if not self._expired(one))
        return next((one for one in known if url == one.image_url or key == one.object_key), None)

    async def find_repeat(self, caller: Identity, request: TaskRequest) -> Task | None:
        """Return the task of an earlier, equal request with the same key, or None."""
        return self._repeat_of(caller, request)

    async def get_task(self, caller: Identity, task_id: str) -> Task:
        """Return the caller's task with this id, or raise NotFoundError."""
        return self._own(self._t.tasks.get(task_id), caller, "task")

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
        mine = [
            task
            for task in self._t.tasks.values()
            if task.user_id == caller.user_id and project_id in (None, task.project_id) and not self._expired(task)
        ]
        mine.sort(key=lambda task: (task.created_at, task.task_id), reverse=True)
        rest = mine[(page - 1) * limit :]
        if after is not None:
            place = (after.created_at, after.item_id)
            rest = [task for task in mine if (task.created_at, task.task_id) < place]
        shown = rest[:limit]
        more = len(rest) > limit
        cursor = Cursor(created_at=shown[-1].created_at, item_id=shown[-1].task_id) if more else None
        return TaskPage(tasks=tuple(shown), total=len(mine), next_cursor=cursor)

    async def cancel(self, caller: Identity, task_id: str) -> Task:
        """Cancel and refund a task, or return it unchanged if it has ended."""
        task = self._own(self._t.tasks.get(task_id), caller, "task")
        return self._t.save(task, state_machine.cancel(task, now=self._t.now()))

    async def delete_task(self, caller: Identity, task_id: str) -> Task:
        """Delete a task, after cancelling it if it has not ended, or raise NotFoundError."""
        task = await self.cancel(caller, task_id)
        retention.delete_task(self._t, task_id)
        return task

    async def create_project(self, caller: Identity, name: str) -> Project:
        """Create a project."""
        _refuse_anonymous(caller)
        self._t.ensure(caller.user_id, caller.tier)
        now = self._t.now()
        project = Project(
            project_id=str(uuid.uuid4()), user_id=caller.user_id, name=name, created_at=now, updated_at=now
        )
        self._t.projects[project.project_id] = project
        return project

    async def get_project(self, caller: Identity, project_id: str) -> Project:
        """Return the caller's project with this id, or raise NotFoundError."""
        return _own(self._t.projects.get(project_id), caller, "project")

    async def list_projects(self, caller: Identity, *, page: int = 1, limit: int = 20) -> ProjectPage:
        """Return one page of the caller's projects, newest first."""
        mine = [project for project in self._t.projects.values() if project.user_id == caller.user_id]
        mine.sort(key=lambda project: (project.created_at, project.project_id), reverse=True)
        return ProjectPage(projects=tuple(mine[(page - 1) * limit : page * limit]), total=len(mine))

    async def create_concept(self, caller: Identity, name: str, definition: Mapping[str, Any]) -> Concept:
        """Store a concept."""
        _refuse_anonymous(caller)
        self._t.ensure(caller.user_id, caller.tier)
        require_room(len(await self.list_concepts(caller)))
        concept = Concept(
            concept_id=str(uuid.uuid4()),
            user_id=caller.user_id,
            name=name,
            definition=definition,
            created_at=self._t.now(),
        )
        self._t.concepts[concept.concept_id] = concept
        return concept

    async def get_concept(self, caller: Identity, concept_id: str) -> Concept:
        """Return the caller's concept with this id, or raise NotFoundError."""
        return _own(self._t.concepts.get(concept_id), caller, "concept")

    async def list_concepts(self, caller: Identity) -> Sequence[Concept]:
        """Return all concepts of the caller, newest first."""
        mine = [concept for concept in self._t.concepts.values() if concept.user_id == caller.user_id]
        return tuple(sorted(mine, key=lambda one: (one.created_at, one.concept_id), reverse=True))

    async def delete_concept(self, caller: Identity, concept_id: str) -> None:
        """Delete a concept, or raise NotFoundError."""
        await self.get_concept(caller, concept_id)
        del self._t.concepts[concept_id]

    async def rename_project(self, caller: Identity, project_id: str, name: str) -> Project:
        """Rename a project, or raise NotFoundError."""
        project = await self.get_project(caller, project_id)
        self._t.projects[project_id] = replace(project, name=name, updated_at=self._t.now())
        return self._t.projects[project_id]

    async def delete_project(self, caller: Identity, project_id: str) -> None:
        """Delete a project and keep its images and tasks, or raise NotFoundError."""
        await self.get_project(caller, project_id)
        del self._t.projects[project_id]
        for image in [row for row in self._t.images.values() if row.project_id == project_id]:
            self._t.images[image.image_id] = replace(image, project_id=None)
        for task in [row for row in self._t.tasks.values() if row.project_id == project_id]:
            self._t.tasks[task.task_id] = replace(task, project_id=None)

    async def check(self) -> None:
        """Do nothing: memory is always available."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    def _repeat_of(self, caller: Identity, request: TaskRequest) -> Task | None:
        if request.idempotency_key is None:
            return None
        known = self._t.idempotency_keys.get((caller.user_id, request.idempotency_key))
        if known is None:
            return None
        fingerprint, task_id = known
        if self._expired(self._t.tasks[task_id]):
            return None
        if fingerprint != request.fingerprint:
            raise InvalidRequestError("Idempotency-Key was used for another request")
        return self._t.tasks[task_id]

    def _expired(self, row: StoredImage | Task) -> bool:
        return row.expired(self._t.now())

    def _own(self, row: _ExpiringRow | None, caller: Identity, what: str) -> _ExpiringRow:
        row = _own(row, caller, what)
        if self._expired(row):
            raise NotFoundError(f"no such {what}")
        return row

    def _require_project(self, caller: Identity, project_id: str | None) -> None:
        if project_id is None:
            return
        project = self._t.projects.get(project_id)
        if project is None or project.user_id != caller.user_id:
            raise InvalidRequestError("project_id is not one of your projects")


def _refuse_anonymous(caller: Identity) -> None:
    if caller.anonymous:
        raise ForbiddenError("anonymous users may not do this; sign in")


def _own(row: _Row | None, caller: Identity, what: str) -> _Row:
    if row is None or row.user_id != caller.user_id:
        raise NotFoundError(f"no such {what}")
    return row
