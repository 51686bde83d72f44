"""`Edge`: everything that a user of the service may do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from s3seg.api.edge import ResultsQuery, SegmentRequest
from s3seg.edge.caching_authenticator import CachingAuthenticator
from s3seg.edge.concurrency import ConcurrencyLimiter
from s3seg.edge.storing import remove_objects, store_picture
from s3seg.edge.ttl_cache import TTLCache
from s3seg.edge.uploads import Upload, inspect
from s3seg.edge.watching import changes
from s3seg.errors import (
    AuthInvalidError,
    AuthRequiredError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    S3segError,
    UnavailableError,
)
from s3seg.tasks.health import health_check
from s3seg.tasks.limits import DEFAULT_PAGE_SIZE, Action, Tier
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.ports import Authenticator, ObjectStore, Part, RateLimiter, TaskStore, WorkerNotifier
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import (
    Account,
    Cursor,
    Identity,
    ObjectStream,
    Project,
    ProjectPage,
    StoredImage,
    Submitted,
    TaskPage,
)

_T = TypeVar("_T")
_log = logging.getLogger("s3seg.edge")

_TIER_TTL_S = 30.0
_POKES_AT_ONCE = 256
_CHECKED_FOR_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """How much the edge takes on at once.

    Attributes:
        max_pixels: Largest picture accepted.
        uploads_at_once: Uploads held in memory together, at most 10 MB each.
        uploads_of_one_user: How many of them may be one user's, so that few slow senders do not keep all others out.
        upload_wait_s: Seconds that a further one waits for a place, its body unread, before it is answered 503.
        decodes_at_once: Pictures decoded together, each of which takes about 7 bytes a pixel.
        watchers_at_once: Requests that wait for a task to end.
        presign_s: Seconds that a redirect to a private object is good for.
    """

    max_pixels: int = 50_000_000
    uploads_at_once: int = 32
    uploads_of_one_user: int = 8
    upload_wait_s: float = 2.0
    decodes_at_once: int = 2
    watchers_at_once: int = 500
    presign_s: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited(Generic[_T]):
    """An answer, and where the caller stands with the rate limit that it counted against.

    Attributes:
        value: The answer.
        rate: None where reads went on without a limiter that did not answer.
    """

    value: _T
    rate: RateDecision | None


class Edge:
    """The use cases, each of which acts for one caller and sees only what is theirs.

    All methods may raise `RateLimitedError` and `UnavailableError` besides what they list.

    Args:
        objects: Where images and results lie.
        tasks: Images, tasks, projects and credits, as their owners see them.
        authenticator: Judges tokens; its verdicts are remembered for a minute.
        limiter: Counts everything but submits, which the task store counts in the transaction that debits them.
        inference: Is told of new work, after the answer; if that is lost, the claim loops find it.
        options: Capacities.
    """

    def __init__(
        self,
        *,
        objects: ObjectStore,
        tasks: TaskStore,
        authenticator: Authenticator,
        limiter: RateLimiter,
        inference: WorkerNotifier,
        options: EdgeOptions | None = None,
    ) -> None:
        self._objects = objects
        self._tasks = tasks
        self._authenticator = CachingAuthenticator(authenticator)
        self._limiter = limiter
        self._inference = inference
        self._options = options or EdgeOptions()
        self._tiers: TTLCache[Tier] = TTLCache(time.monotonic)
        self._refused: TTLCache[tuple[float, RateDecision]] = TTLCache(time.monotonic)
        self._uploading = ConcurrencyLimiter(
            self._options.uploads_at_once,
            of_one_user=self._options.uploads_of_one_user,
            wait_s=self._options.upload_wait_s,
            of_what="uploads",
        )
        self._decoding = asyncio.Semaphore(self._options.decodes_at_once)
        self._watching = 0
        self._pokes: set[asyncio.Task[None]] = set()
        self._checking = asyncio.Lock()
        self._checked: dict[str, str | None] = {}
        self._checked_until = -math.inf

    # ---- who calls ----

    async def authenticate(self, authorization: str | None) -> Identity:
        """Who calls, by the ``Authorization`` header.

        Raises:
            AuthRequiredError: If there is no token in it.
            AuthInvalidError: If the token does not hold.
            ForbiddenError: If it is anonymous or not a user's.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        if not scheme or (scheme.lower() == "bearer" and not token.strip()):
            raise AuthRequiredError("send an access token: Authorization: Bearer <token>")
        if scheme.lower() != "bearer":
            raise AuthInvalidError("the Authorization header must be of the kind Bearer")
        return await self._authenticator.authenticate(token.strip())

    async def me(self, caller: Identity) -> Limited[Account]:
        """The caller's tier and credits."""
        rate = await self._count(caller, Action.RESULTS)
        return Limited(value=await self._tasks.account(caller), rate=rate)

    # ---- images ----

    async def upload(self, caller: Identity, upload: Upload | Callable[[], Awaitable[Upload]]) -> Limited[StoredImage]:
        """Store a picture under an unguessable key of the caller's, and register it.

        Args:
            caller: Whose it becomes.
            upload: The file, or what reads it; that is called only once limit and capacity allow the upload.

        Raises:
            FileTooLargeError: More than 10 MB.
            ImageDecodeError: Not a whole PNG, JPEG or WebP, or more pixels than allowed.
            InvalidRequestError: The project is not one of the caller's.
        """
        rate = await self._count(caller, Action.UPLOAD)
        async with self._uploading.take(caller.user_id):
            if not isinstance(upload, Upload):
                upload = await upload()
            return Limited(value=await self._store(caller, upload), rate=rate)

    async def delete_image(self, caller: Identity, image_id: str) -> Limited[StoredImage]:
        """Cancel the image's live tasks, forget it, and remove its object; results that exist stay.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.RESULTS)
        image = await self._tasks.delete_image(caller, image_id)
        await remove_objects([image.object_key], objects=self._objects)
        return Limited(value=image, rate=rate)

    async def open_object(self, key: str) -> ObjectStream | str:
        """An object that its address names, for whoever knows the address: to be streamed, or where to go for it.

        Raises:
            NotFoundError: If there is none.
        """
        try:
            elsewhere = await self._objects.presign(key, expires_s=self._options.presign_s)
        except S3segError as err:
            if err.code == "INVALID_REQUEST":
                raise NotFoundError("no such object") from None
            raise
        return elsewhere or await self._objects.stream(key)

    # ---- tasks ----

    async def submit(
        self, caller: Identity, request: SegmentRequest, *, idempotency_key: str | None = None
    ) -> Submitted:
        """Accept a task and pay for it, in one transaction; the inference side is told afterwards.

        Args:
            caller: Who pays.
            request: Image and prompts.
            idempotency_key: Repeats with the same key and the same request give the same task, once paid.

        Raises:
            InvalidRequestError: Image or project are not the caller's, or the key was used for another request.
            InsufficientCreditsError: One credit a prompt is needed.
            RateLimitedError: Also after as many refusals in a minute as there may be tasks.
        """
        task_request = TaskRequest(
            image_url=request.image_url,
            prompts=request.prompts,
            project_id=request.project_id,
            idempotency_key=idempotency_key,
        )
        self._require_unrefused(caller)
        try:
            submitted = await self._tasks.submit(caller, task_request)
        except (InvalidRequestError, InsufficientCreditsError):
            await self._count_refusal(caller)
            raise
        if not submitted.task.ended:
            self._poke(submitted.task)
        return submitted

    async def task(self, caller: Identity, task_id: str) -> Limited[Task]:
        """One of the caller's tasks.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.TASKS)
        return Limited(value=await self._tasks.get_task(caller, task_id), rate=rate)

    @property
    def can_wait(self) -> bool:
        """Whether one more may wait for a task to end."""
        return self._watching < self._options.watchers_at_once

    async def wait(self, caller: Identity, task: Task, *, timeout_s: float) -> Task:
        """The task once it has ended, or as it was last seen: when time is over, too many wait, or it cannot be read.

        Raises nothing: the task was accepted, whatever happens to the wait.
        """
        if task.ended or not self.can_wait:
            return task
        with contextlib.suppress(S3segError):  # such as a token that a store no longer takes
            async with contextlib.aclosing(self._watch(caller, task.task_id, timeout_s)) as states:
                async for latest in states:
                    task = latest
        return task

    async def events(self, caller: Identity, task_id: str, *, timeout_s: float) -> Limited[AsyncGenerator[Task, None]]:
        """The task as it is, then each time its status changes, until it has ended or time is over.

        The whole stream counts once.

        Raises:
            NotFoundError: If there is none; before the first event.
        """
        found = await self.task(caller, task_id)
        if not self.can_wait:
            raise UnavailableError("too many requests wait for tasks; poll instead, or try again", retry_after=5)
        return Limited(value=self._watch(caller, task_id, timeout_s), rate=found.rate)

    async def cancel(self, caller: Identity, task_id: str) -> Limited[Task]:
        """End a live task in error "cancelled", refunded; one that has ended is returned as it is.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.TASKS)
        return Limited(value=await self._tasks.cancel(caller, task_id), rate=rate)

    # ---- results: the same tasks, as a list and in full ----

    async def results(self, caller: Identity, query: ResultsQuery) -> Limited[TaskPage]:
        """The caller's tasks of every status, newest first.

        Raises:
            InvalidRequestError: If the cursor is not one of ours.
        """
        after = None if query.cursor is None else Cursor.decode(query.cursor)
        rate = await self._count(caller, Action.RESULTS)
        page = await self._tasks.list_tasks(
            caller, project_id=query.project_id, page=query.page, limit=query.limit, after=after
        )
        return Limited(value=page, rate=rate)

    async def result(self, caller: Identity, result_id: str) -> Limited[Task]:
        """One of the caller's results; its id is its task's.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.RESULTS)
        return Limited(value=await self._tasks.get_task(caller, result_id), rate=rate)

    async def delete_result(self, caller: Identity, result_id: str) -> Limited[Task]:
        """Cancel the task if it is live, forget it, and remove its objects; the source image stays.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.RESULTS)
        task = await self._tasks.delete_task(caller, result_id)
        await remove_objects(task.object_keys, objects=self._objects)
        return Limited(value=task, rate=rate)

    # ---- projects ----

    async def create_project(self, caller: Identity, name: str) -> Limited[Project]:
        """A new project; names need not differ."""
        rate = await self._count(caller, Action.RESULTS)
        return Limited(value=await self._tasks.create_project(caller, name), rate=rate)

    async def project(self, caller: Identity, project_id: str) -> Limited[Project]:
        """One of the caller's projects.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.RESULTS)
        return Limited(value=await self._tasks.get_project(caller, project_id), rate=rate)

    async def projects(
        self, caller: Identity, *, page: int = 1, limit: int = DEFAULT_PAGE_SIZE
    ) -> Limited[ProjectPage]:
        """The caller's projects, newest first."""
        rate = await self._count(caller, Action.RESULTS)
        return Limited(value=await self._tasks.list_projects(caller, page=page, limit=limit), rate=rate)

    async def rename_project(self, caller: Identity, project_id: str, name: str) -> Limited[Project]:
        """Give a project another name.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.RESULTS)
        return Limited(value=await self._tasks.rename_project(caller, project_id, name), rate=rate)

    async def delete_project(self, caller: Identity, project_id: str) -> Limited[None]:
        """Forget a project; its images and results stay, in no project.

        Raises:
            NotFoundError: If there is none.
        """
        rate = await self._count(caller, Action.RESULTS)
        await self._tasks.delete_project(caller, project_id)
        return Limited(value=None, rate=rate)

    # ---- the service itself ----

    async def check(self) -> dict[str, str | None]:
        """Ask every part whether it works: None, or what is wrong with it. Answers are good for a second.

        So that asking often, which anybody may, does not cost the disk a write each time.
        """
        async with self._checking:
            if time.monotonic() >= self._checked_until:
                self._checked = await self._check()
                self._checked_until = time.monotonic() + _CHECKED_FOR_S
        return self._checked

    async def aclose(self) -> None:
        """Stop telling others of work. The parts are closed by whoever made them."""
        pokes = list(self._pokes)
        for poke in pokes:
            poke.cancel()
        await asyncio.gather(*pokes, return_exceptions=True)

    # ---- inside ----

    async def _count(self, caller: Identity, action: Action) -> RateDecision | None:
        try:
            decision = await self._limiter.take(caller, action, await self._tier(caller))
        except UnavailableError:
            if action is Action.UPLOAD:
                raise  # what costs us is refused when it cannot be counted; reads go on
            return None
        decision.require()
        return decision

    def _require_unrefused(self, caller: Identity) -> None:
        refused = self._refused.get(caller.user_id)
        if refused is not None:
            until, decision = refused
            replace(decision, retry_after=until - time.monotonic()).require()

    async def _count_refusal(self, caller: Identity) -> None:
        """The store counts what it debits; refused submits are counted here, lest they come without end."""
        with contextlib.suppress(UnavailableError):
            decision = await self._limiter.take(caller, Action.SEGMENT, await self._tier(caller))
            if not decision.allowed:
                until = time.monotonic() + decision.retry_after
                self._refused.put(caller.user_id, (until, decision), until=until)

    async def _tier(self, caller: Identity) -> Tier:
        known = self._tiers.get(caller.user_id)
        if known is not None:
            return known
        tier = (await self._tasks.account(caller)).tier
        self._tiers.put(caller.user_id, tier, until=time.monotonic() + _TIER_TTL_S)
        return tier

    async def _check(self) -> dict[str, str | None]:
        parts: dict[str, Part] = {
            "objects": self._objects,
            "tasks": self._tasks,
            "authenticator": self._authenticator,
            "rate_limiter": self._limiter,
        }
        said = await asyncio.gather(*(health_check(part) for part in parts.values()))
        return dict(zip(parts, said, strict=True))

    async def _store(self, caller: Identity, upload: Upload) -> StoredImage:
        async with self._decoding:
            picture = await asyncio.to_thread(inspect, upload.data, max_pixels=self._options.max_pixels)
        return await store_picture(caller, upload, picture, objects=self._objects, tasks=self._tasks)

    def _poke(self, task: Task) -> None:
        if len(self._pokes) >= _POKES_AT_ONCE:
            return
        poke = asyncio.create_task(self._wake(task))
        self._pokes.add(poke)
        poke.add_done_callback(self._pokes.discard)

    async def _wake(self, task: Task) -> None:
        try:
            await self._inference.wake(task)
        except Exception as err:  # an adapter that breaks its promise must not be the end of anything
            _log.warning("wake-up call failed: %s", type(err).__name__, extra={"task_id": task.task_id})

    async def _watch(self, caller: Identity, task_id: str, timeout_s: float) -> AsyncGenerator[Task, None]:
        self._watching += 1
        try:
            states = changes(lambda: self._tasks.get_task(caller, task_id), timeout_s=timeout_s)
            async with contextlib.aclosing(states):
                async for task in states:
                    yield task
        finally:
            self._watching -= 1
