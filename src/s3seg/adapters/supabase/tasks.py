"""The task store on Supabase; every call carries the user's own token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from postgrest import AsyncPostgrestClient, CountMethod

from s3seg.adapters.supabase.errors import rate_decision
from s3seg.adapters.supabase.rest import Rest, check_schema
from s3seg.adapters.supabase.rows import (
    account_of,
    canonical_uuid,
    concept_of,
    image_of,
    ledger_entry_of,
    moment,
    project_of,
    task_of,
)
from s3seg.errors import ConfigurationError, InvalidRequestError, NotFoundError
from s3seg.tasks.concepts import MAX_CONCEPTS
from s3seg.tasks.limits import Action
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.object_keys import check_key, owner_of
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

_TASKS, _IMAGES, _PROJECTS, _CONCEPTS = "segmentation_results", "images", "projects", "concepts"
_TASK_COLUMNS = (
    *("id", "user_id", "project_id", "image_id", "source_image_url", "text_prompts", "status"),
    *("created_at", "updated_at", "deadline", "mask_image_url", "labels", "metadata", "object_keys"),
    *("error_code", "error_message", "visual", "request_id", "keep_s"),
)


class SupabaseTaskStore:
    """A `TaskStore` in a Supabase project. All rules are enforced by the database, not here.

    Args:
        rest: The PostgREST API, with the publishable key.
        public_base: Base URL of stored objects; `check` compares it with the one in the database.
        realtime: Whether clients are told to wait for tasks with Realtime; `probe` checks that it can tell them.
    """

    def __init__(self, rest: Rest, *, public_base: str, realtime: bool = False) -> None:
        self._rest = rest
        self._public_base = public_base
        self._realtime = realtime

    async def account(self, caller: Identity) -> Account:
        """Return the caller's account, and create it if it does not exist."""
        return account_of(await self._call(caller, "my_account", {}, safe=True))

    async def register_image(self, caller: Identity, image: NewImage) -> StoredImage:
        """Register a stored object as one of the caller's images."""
        arguments = {
            "p_object_key": check_key(image.object_key),
            "p_content_type": image.content_type,
            "p_size_bytes": image.size_bytes,
            "p_width": image.width,
            "p_height": image.height,
            "p_project_id": _project_argument(image.project_id),
            "p_keep_s": image.keep_s,
        }
        return image_of(await self._call(caller, "register_image", arguments))

    async def get_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Return the caller's image with this id, or raise NotFoundError."""
        return image_of(await self._one(caller, _IMAGES, image_id, "no such image"))

    async def find_image(self, caller: Identity, object_key: str) -> StoredImage | None:
        """Return the caller's image with this object key, or None."""
        if owner_of(object_key) != caller.user_id:
            return None
        query = self._as(caller).from_(_IMAGES).select("*").eq("object_key", object_key).limit(1)
        found = await self._rest.run(query, safe=True)
        return image_of(found[0]) if found else None

    async def list_images(
        self, caller: Identity, *, limit: int = 20, after: Cursor | None = None
    ) -> Sequence[StoredImage]:
        """Return up to ``limit`` of the caller's images, newest first."""
        query = self._as(caller).from_(_IMAGES).select("*")
        if after is not None:
            query = _beyond(query, after)
        query = query.order("created_at", desc=True).order("id", desc=True).limit(limit)
        return [image_of(row) for row in await self._rest.run(query, safe=True)]

    async def credit_history(self, caller: Identity, *, limit: int = 100, offset: int = 0) -> Sequence[LedgerEntry]:
        """Return up to ``limit`` changes of the caller's credits, oldest first."""
        query = self._as(caller).from_("credit_ledger").select("user_id", "delta", "reason", "task_id", "created_at")
        for column in ("created_at", "task_id", "reason", "delta"):  # a total order, but for entries that are equal
            query = query.order(column)
        rows, _ = await self._rest.run_counted(query.limit(limit).offset(offset))
        return [ledger_entry_of(row) for row in rows]

    async def close_account(self, caller: Identity) -> datetime:
        """Mark the caller's account as deleted."""
        return moment(await self._call(caller, "close_my_account", {}, safe=True))

    async def delete_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Delete an image and cancel its tasks that have not ended, or raise NotFoundError."""
        return image_of(await self._change(caller, "delete_image", "p_image_id", image_id, "no such image"))

    async def submit(self, caller: Identity, request: TaskRequest) -> Submitted:
        """Create a task and debit its credits, or return the task of an equal request with the same key."""
        # with an idempotency key the call can be repeated safely if the response is lost
        repeatable = request.idempotency_key is not None
        rest = self._rest.as_user(caller.token, request_id=request.request_id)  # a column takes it from the header
        answer = await self._rest.call(rest, "submit_segmentation", _submit_arguments(request), safe=repeatable)
        rate = answer["rate"]
        return Submitted(
            task=task_of(answer["task"]),
            created=answer["created"],
            rate=None if rate is None else rate_decision(rate, Action.SEGMENT),
        )

    async def find_repeat(self, caller: Identity, request: TaskRequest) -> Task | None:
        """Return the task of an earlier, equal request with the same key, or None."""
        found = await self._call(caller, "find_repeat", _submit_arguments(request), safe=True)
        return None if found is None else task_of(found)

    async def get_task(self, caller: Identity, task_id: str) -> Task:
        """Return the caller's task with this id, or raise NotFoundError."""
        return task_of(await self._one(caller, _TASKS, task_id, "no such task", *_TASK_COLUMNS))

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
        if project_id is not None and canonical_uuid(project_id) is None:
            return TaskPage(tasks=(), total=0, next_cursor=None)
        if after is None:
            rows, total = await self._page(caller, project_id, limit + 1, (page - 1) * limit)
        else:
            rows, total = await self._seek(caller, project_id, limit + 1, after)
        tasks = tuple(task_of(row) for row in rows[:limit])
        more = len(rows) > limit
        cursor = Cursor(created_at=tasks[-1].created_at, item_id=tasks[-1].task_id) if more else None
        return TaskPage(tasks=tasks, total=total, next_cursor=cursor)

    async def cancel(self, caller: Identity, task_id: str) -> Task:
        """Cancel and refund a task, or return it unchanged if it has ended."""
        return task_of(await self._change(caller, "cancel_task", "p_task_id", task_id, "no such task"))

    async def delete_task(self, caller: Identity, task_id: str) -> Task:
        """Delete a task, after cancelling it if it has not ended, or raise NotFoundError."""
        return task_of(await self._change(caller, "delete_task", "p_task_id", task_id, "no such task"))

    async def create_project(self, caller: Identity, name: str) -> Project:
        """Create a project."""
        rows = await self._rest.run(self._as(caller).from_(_PROJECTS).insert({"name": name}))
        return project_of(rows[0])

    async def get_project(self, caller: Identity, project_id: str) -> Project:
        """Return the caller's project with this id, or raise NotFoundError."""
        return project_of(await self._one(caller, _PROJECTS, project_id, "no such project"))

    async def list_projects(self, caller: Identity, *, page: int = 1, limit: int = 20) -> ProjectPage:
        """Return one page of the caller's projects, newest first."""
        query = (
            self._as(caller)
            .from_(_PROJECTS)
            .select("*", count=CountMethod.exact)
            .order("created_at", desc=True)
            .order("id", desc=True)
            .limit(limit)
            .offset((page - 1) * limit)
        )
        rows, total = await self._rest.run_counted(query)
        return ProjectPage(projects=tuple(project_of(row) for row in rows), total=total)

    async def rename_project(self, caller: Identity, project_id: str, name: str) -> Project:
        """Rename a project, or raise NotFoundError."""
        query = self._as(caller).from_(_PROJECTS).update({"name": name}).eq("id", _id(project_id, "no such project"))
        return project_of(_only(await self._rest.run(query), "no such project"))

    async def delete_project(self, caller: Identity, project_id: str) -> None:
        """Delete a project and keep its images and tasks, or raise NotFoundError."""
        query = self._as(caller).from_(_PROJECTS).delete().eq("id", _id(project_id, "no such project"))
        _only(await self._rest.run(query), "no such project")

    async def create_concept(self, caller: Identity, name: str, definition: Mapping[str, Any]) -> Concept:
        """Store a concept."""
        query = self._as(caller).from_(_CONCEPTS).insert({"name": name, "definition": definition})
        return concept_of((await self._rest.run(query))[0])

    async def get_concept(self, caller: Identity, concept_id: str) -> Concept:
        """Return the caller's concept with this id, or raise NotFoundError."""
        return concept_of(await self._one(caller, _CONCEPTS, concept_id, "no such concept"))

    async def list_concepts(self, caller: Identity) -> Sequence[Concept]:
        """Return all concepts of the caller, newest first."""
        query = self._as(caller).from_(_CONCEPTS).select("*")
        query = query.order("created_at", desc=True).order("id", desc=True).limit(MAX_CONCEPTS)
        return tuple(concept_of(row) for row in await self._rest.run(query, safe=True))

    async def delete_concept(self, caller: Identity, concept_id: str) -> None:
        """Delete a concept, or raise NotFoundError."""
        query = self._as(caller).from_(_CONCEPTS).delete().eq("id", _id(concept_id, "no such concept"))
        _only(await self._rest.run(query), "no such concept")

    async def check(self) -> None:
        """Check that the database responds, has the schema of s3seg, and uses the same public base URL."""
        await check_schema(self._rest, public_base=self._public_base)

    async def probe(self) -> None:
        """Check that the database publishes changes of tasks to Realtime, if clients are told to wait for them.

        Raises:
            ConfigurationError: It does not.
        """
        if self._realtime and not await self._rest.call(self._rest.as_key(), "s3seg_realtime", {}, safe=True):
            raise ConfigurationError(
                "S3SEG_SUPABASE_REALTIME is on, but the publication supabase_realtime does not have the table "
                "segmentation_results, so clients poll slowly; turn the setting off, or add the table under Database, "
                "Publications in the project's dashboard"
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()

    def _as(self, caller: Identity) -> AsyncPostgrestClient:
        return self._rest.as_user(caller.token)

    async def _call(self, caller: Identity, function: str, arguments: dict[str, Any], *, safe: bool = False) -> Any:
        return await self._rest.call(self._as(caller), function, arguments, safe=safe)

    async def _change(self, caller: Identity, function: str, argument: str, item_id: str, absent: str) -> Any:
        found = await self._call(caller, function, {argument: _id(item_id, absent)})
        if found is None:
            raise NotFoundError(absent)
        return found

    async def _one(self, caller: Identity, table: str, item_id: str, absent: str, *columns: str) -> Any:
        query = self._as(caller).from_(table).select(*(columns or ("*",))).eq("id", _id(item_id, absent)).limit(1)
        return _only(await self._rest.run(query, safe=True), absent)

    async def _page(
        self, caller: Identity, project_id: str | None, limit: int, offset: int
    ) -> tuple[list[dict[str, Any]], int]:
        query = self._as(caller).from_(_TASKS).select(*_TASK_COLUMNS, count=CountMethod.exact)
        if project_id is not None:
            query = query.eq("project_id", project_id)
        query = query.order("created_at", desc=True).order("id", desc=True).limit(limit).offset(offset)
        return await self._rest.run_counted(query)

    async def _seek(
        self, caller: Identity, project_id: str | None, limit: int, after: Cursor
    ) -> tuple[list[dict[str, Any]], int]:
        """Return the rows after a position, which an index finds quickly; the total needs a query of its own."""
        _, total = await self._page(caller, project_id, 1, 0)
        query = _beyond(self._as(caller).from_(_TASKS).select(*_TASK_COLUMNS), after)
        if project_id is not None:
            query = query.eq("project_id", project_id)
        query = query.order("created_at", desc=True).order("id", desc=True).limit(limit)
        return await self._rest.run(query, safe=True), total


def _beyond(query: Any, after: Cursor) -> Any:
    """Restrict a query to rows after a position in a list that is sorted newest first."""
    at = after.created_at.isoformat()
    return query.lte("created_at", at).or_(f'created_at.lt."{at}",id.lt."{after.item_id}"')


def _id(text: str, absent: str) -> str:
    found = canonical_uuid(text)
    if found is None:
        raise NotFoundError(absent)
    return found


def _submit_arguments(request: TaskRequest) -> dict[str, Any]:
    return {
        "p_image_url": request.image_url,
        "p_text_prompts": list(request.prompts),
        "p_project_id": _project_argument(request.project_id),
        "p_idempotency_key": request.idempotency_key,
        "p_visual": request.visual,
        "p_keep_s": request.keep_s,
    }


def _project_argument(project_id: str | None) -> str | None:
    if project_id is not None and canonical_uuid(project_id) is None:
        raise InvalidRequestError("project_id is not one of your projects")
    return project_id


def _only(rows: list[dict[str, Any]], absent: str) -> dict[str, Any]:
    if not rows:
        raise NotFoundError(absent)
    return rows[0]
