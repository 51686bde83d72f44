"""`Edge`: the use cases of the public API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime

from s3seg.api.additions import ConceptRequest
from s3seg.api.edge import SegmentRequest
from s3seg.edge import direct_uploads
from s3seg.edge.caching_authenticator import CachingAuthenticator
from s3seg.edge.concurrency import ConcurrencyLimiter
from s3seg.edge.direct_uploads import DirectUpload
from s3seg.edge.export import AccountExport, ExportCursor, holding_place, require_place
from s3seg.edge.notifications import WorkerNotifications
from s3seg.edge.options import EdgeMemory, EdgeOptions
from s3seg.edge.rate_limits import RateLimits
from s3seg.edge.storing import remove_objects, store_picture
from s3seg.edge.uploads import Inspect, Picture, ThreadedInspection, Upload
from s3seg.edge.watching import TaskWatcher
from s3seg.errors import (
    AuthInvalidError,
    AuthRequiredError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    S3segError,
)
from s3seg.tasks.health import health_check
from s3seg.tasks.model import Task, TaskRequest
from s3seg.tasks.object_keys import owner_of
from s3seg.tasks.ports import Authenticator, ObjectStore, Part, RateLimiter, TaskStore, WorkerNotifier
from s3seg.tasks.records import Concept, Identity, ObjectStream, StoredImage, Submitted
from s3seg.tasks.visual import visual_of_concept
from s3seg.tasks.webhook_address import check_url
from s3seg.tasks.webhooks import Webhook, Webhooks

_CHECK_TTL_S = 1.0


class Edge:
    """The use cases of the public API, without HTTP.

    A use case that only reads or writes records is a method of `tasks`, called with the authenticated caller; the
    methods here are those that do more. None of them counts requests, except that `submit` refuses a caller with
    too many bad requests: count with `rate_limits` before a use case, as the HTTP routes do.

    All methods may raise `UnavailableError`.

    Args:
        objects: Stores images and results.
        tasks: Images, tasks, projects and credits, each method limited to what its caller owns.
        authenticator: Verifies tokens. Verified ones are cached for a minute.
        limiter: Counts all requests but accepted submits, which the task store counts when it debits them.
        notifier: Tells workers about new tasks, after the client has its answer.
        webhooks: Addresses that are told of a user's tasks; None if the service has no webhooks.
        webhooks_to_private_addresses: Accept any address of a webhook.
        inspect: Checks uploaded files. Without it they are decoded in threads, which cannot be stopped: only for users
            who are trusted.
        options: Capacities.
        memory: What is remembered between requests; by default of this edge only.

    Attributes:
        tasks: The task store.
        rate_limits: Counts requests.
    """

    def __init__(
        self,
        *,
        objects: ObjectStore,
        tasks: TaskStore,
        authenticator: Authenticator,
        limiter: RateLimiter,
        notifier: WorkerNotifier,
        webhooks: Webhooks | None = None,
        webhooks_to_private_addresses: bool = False,
        inspect: Inspect | None = None,
        options: EdgeOptions | None = None,
        memory: EdgeMemory | None = None,
    ) -> None:
        self._options = options = options or EdgeOptions()
        memory = memory or EdgeMemory(options)
        self.tasks = tasks
        self.rate_limits = RateLimits(limiter, tasks, memory.rates)
        self._objects = objects
        self._authenticator = CachingAuthenticator(authenticator, memory.identities)
        self._limiter = limiter
        self._webhooks = webhooks
        self._webhooks_to_private_addresses = webhooks_to_private_addresses
        self._uploads = ConcurrencyLimiter(memory.uploads, wait_s=options.upload_wait_s, name="uploads")
        self._inspect = inspect or ThreadedInspection()
        self._watcher = TaskWatcher(tasks, watchers=memory.watchers, longest_pause_s=options.longest_pause_s)
        self._notifications = WorkerNotifications(notifier)
        self._checking = asyncio.Lock()
        self._memory = memory

    async def authenticate(self, authorization: str | None) -> Identity:
        """Return the identity that an ``Authorization`` header proves.

        Raises:
            AuthRequiredError: The header is missing or has no token.
            AuthInvalidError: The scheme is not Bearer, or the token is not valid.
            ForbiddenError: The token is anonymous or not a user's.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        if not scheme or (scheme.lower() == "bearer" and not token.strip()):
            raise AuthRequiredError("no access token; send the header Authorization: Bearer <token>")
        if scheme.lower() != "bearer":
            raise AuthInvalidError("the Authorization header must use the Bearer scheme")
        return await self._authenticator.authenticate(token.strip())

    # ---- images ----

    async def upload(self, caller: Identity, upload: Upload | Callable[[], Awaitable[Upload]]) -> StoredImage:
        """Store a picture under a new, unguessable key of the caller, and register it.

        Args:
            caller: Owner of the image.
            upload: The file, or a function that reads it, which is called once there is room for the upload.

        Raises:
            FileTooLargeError: The file has more than 10 MB.
            ImageDecodeError: The file is not a complete PNG, JPEG or WebP, has too many pixels, or takes too long or
                too much memory to decode.
            InvalidRequestError: The project is not the caller's.
        """
        async with self._uploads.slot(caller.user_id) as slot:
            if not isinstance(upload, Upload):
                async with slot.giving_way():  # while the client sends
                    upload = await upload()
            picture = await self._inspected(caller, upload.data)
            return await store_picture(caller, upload, picture, objects=self._objects, tasks=self.tasks)

    @property
    def takes_direct_uploads(self) -> bool:
        """Whether `begin_upload` can be used, which depends on the object store."""
        return self._objects.takes_presigned_puts

    async def begin_upload(self, caller: Identity, *, content_type: str, size_bytes: int) -> DirectUpload:
        """Sign a request with which the caller stores a picture without sending it through the edge.

        Raises:
            FileTooLargeError: ``size_bytes`` is more than 10 MB.
            InvalidRequestError: The type is not one that can be uploaded.
            NotFoundError: The object store takes no such uploads.
        """
        return await direct_uploads.begin(
            caller, content_type=content_type, size_bytes=size_bytes, objects=self._objects
        )

    async def complete_upload(
        self, caller: Identity, upload_id: str, *, project_id: str | None = None, expires_in_s: int | None = None
    ) -> StoredImage:
        """Inspect what was stored with the request of `begin_upload`, and register it. A repeat returns the same image.

        Raises:
            NotFoundError: The caller has begun no such upload, or sent nothing.
            ImageDecodeError: As for `upload`, or the picture is of another type than announced; it is removed.
            InvalidRequestError: The project is not the caller's.
        """
        async with self._uploads.slot(caller.user_id):
            return await direct_uploads.complete(
                caller,
                upload_id,
                project_id=project_id,
                expires_in_s=expires_in_s,
                inspect=lambda data: self._inspected(caller, data),
                objects=self._objects,
                tasks=self.tasks,
            )

    async def _inspected(self, caller: Identity, data: bytes) -> Picture:
        return await self._inspect(data, user_id=caller.user_id, max_pixels=self._options.max_pixels)

    async def delete_image(self, caller: Identity, image_id: str) -> StoredImage:
        """Delete an image and its object, and cancel its unfinished tasks; finished results are kept.

        Raises:
            NotFoundError: The caller has no such image.
        """
        image = await self.tasks.delete_image(caller, image_id)
        await remove_objects([image.object_key], objects=self._objects)
        return image

    async def open_object(self, key: str) -> ObjectStream | str:
        """Open an image or a result for anyone who knows its key; other objects of a shared bucket are not served.

        Returns:
            The object as a stream, or a short-lived URL to redirect to where the store is private.

        Raises:
            NotFoundError: There is no such object.
        """
        if owner_of(key) is None:
            raise NotFoundError("no such object")
        url = await self._objects.presign(key, expires_s=self._options.presign_s)
        return url or await self._objects.stream(key)

    # ---- tasks ----

    async def submit(
        self,
        caller: Identity,
        request: SegmentRequest,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> Submitted:
        """Accept a task and debit its credits in one transaction, then notify the workers.

        Args:
            caller: Owner of the task, who pays for it.
            request: Image and prompts.
            idempotency_key: A repeat with the same key and the same request returns the same task, debited once.
            request_id: Id of the HTTP request, for the log lines of workers.

        Raises:
            InvalidRequestError: The image, concept or project is not the caller's, or the key was used for another
                request.
            InsufficientCreditsError: The account has less than one credit per prompt.
            RateLimitedError: The caller's submits, or refused submits, have reached the limit.
        """
        if request.concept_id is None:
            prompts, visual = request.prompts, request.visual
        else:
            concept = await self._concept(caller, request.concept_id)
            prompts, visual = (concept.name,), visual_of_concept(concept)
        task_request = TaskRequest(
            image_url=request.image_url,
            prompts=prompts,
            project_id=request.project_id,
            idempotency_key=idempotency_key,
            visual=visual,
            request_id=request_id,
            keep_s=request.expires_in_s,
        )
        try:
            self.rate_limits.require_may_submit(caller)
        except RateLimitedError:
            paid = None if idempotency_key is None else await self.tasks.find_repeat(caller, task_request)
            if paid is None:
                raise
            return Submitted(task=paid, created=False, rate=None)
        try:
            submitted = await self.tasks.submit(caller, task_request)
        except (InvalidRequestError, InsufficientCreditsError):
            await self.rate_limits.count_refused_submit(caller)
            raise
        if not submitted.task.ended:
            self._notifications.send(submitted.task)
        return submitted

    async def _concept(self, caller: Identity, concept_id: str) -> Concept:
        try:
            return await self.tasks.get_concept(caller, concept_id)
        except NotFoundError:
            self.rate_limits.require_may_submit(caller)
            await self.rate_limits.count_refused_submit(caller)
            raise InvalidRequestError("concept_id is not one of your concepts") from None

    async def create_concept(self, caller: Identity, request: ConceptRequest) -> Concept:
        """Keep examples on the caller's images as a concept.

        Raises:
            InvalidRequestError: An image is not the caller's, or the caller has too many concepts.
        """
        definition = request.definition()
        definition.require_owner(caller.user_id)
        return await self.tasks.create_concept(caller, request.name, definition.to_dict())

    def can_wait(self, caller: Identity) -> bool:
        """Whether one more request of the caller may wait for a task to end."""
        return self._watcher.has_room(caller)

    async def wait(self, caller: Identity, task: Task, *, timeout_s: float) -> Task:
        """Wait until the task has ended, and return it.

        Returns the task as last seen if time is up, too many requests are waiting, or the task cannot be read any
        more. Never raises: the task was accepted, whatever happens to the wait.
        """
        if task.ended or not self.can_wait(caller):
            return task
        with contextlib.suppress(S3segError):  # such as a token that has expired meanwhile
            async with contextlib.aclosing(self._watcher.watch(caller, task.task_id, timeout_s=timeout_s)) as states:
                async for latest in states:
                    task = latest
        return task

    async def events(self, caller: Identity, task_id: str, *, timeout_s: float) -> AsyncGenerator[Task, None]:
        """Return a stream of the task as it is, then after each change of its status, until it ends or time is up.

        Raises:
            NotFoundError: The caller has no such task.
            UnavailableError: Too many requests are waiting for tasks.
        """
        await self.tasks.get_task(caller, task_id)
        self._watcher.require_room(caller)
        return self._watcher.watch(caller, task_id, timeout_s=timeout_s)

    async def delete_result(self, caller: Identity, result_id: str) -> Task:
        """Delete a task and its objects, and cancel it if it is unfinished; the source image is kept.

        Raises:
            NotFoundError: The caller has no such result.
        """
        task = await self.tasks.delete_task(caller, result_id)
        await remove_objects(task.object_keys, objects=self._objects)
        return task

    # ---- webhooks ----

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks of users.

        Raises:
            NotFoundError: This service has none.
        """
        if self._webhooks is None:
            raise NotFoundError("this service has no webhooks")
        return self._webhooks

    async def create_webhook(self, caller: Identity, url: str) -> Webhook:
        """Register an address that is told when a task of the caller ends, and return it with its secret.

        Raises:
            InvalidRequestError: It is no address that may be called, or the caller has too many.
        """
        checked = check_url(url, allow_private=self._webhooks_to_private_addresses)
        return await self.webhooks.create_webhook(caller, checked)

    # ---- all that a user has ----

    def export(self, caller: Identity, *, after: str | None = None) -> AsyncGenerator[bytes, None]:
        """Return a tar archive of all that the caller has, as a stream; see `AccountExport`.

        Raises:
            InvalidRequestError: ``after`` is not a cursor of an archive.
            UnavailableError: The caller, or too many others, are being sent an archive.
        """
        export = AccountExport(caller, tasks=self.tasks, objects=self._objects, webhooks=self._webhooks)
        chunks = export.chunks(after=None if after is None else ExportCursor.decode(after))
        require_place(self._memory.exports, caller.user_id)
        return holding_place(self._memory.exports, caller.user_id, chunks)

    async def delete_account(self, caller: Identity, *, confirm: str) -> datetime:
        """Close the caller's account for ever, and return when it was first closed; a repeat changes nothing.

        From now on the caller is refused, here at once and by other processes within half a minute. Unfinished tasks
        are refunded, and webhooks removed. Services that maintain the data remove the rest.

        Raises:
            InvalidRequestError: ``confirm`` is not the caller's id.
        """
        if confirm != caller.user_id:
            raise InvalidRequestError("confirm: must be your user_id, which GET /api/v1/me has")
        closed_at = await self.tasks.close_account(caller)
        self.rate_limits.forget(caller)
        return closed_at

    # ---- the service itself ----

    async def check(self) -> dict[str, str | None]:
        """Check every part: None if it works, else what is wrong with it.

        Results are cached for a second, since anybody may ask and a check may write to disk.
        """
        memory = self._memory
        async with self._checking:
            if time.monotonic() >= memory.checked_until:
                memory.checked = await self._check()
                memory.checked_until = time.monotonic() + _CHECK_TTL_S
        return memory.checked

    async def aclose(self, *, notify_s: float = 0.0) -> None:
        """Give pending notifications ``notify_s`` seconds, and cancel them. The parts are left to their maker."""
        await self._notifications.aclose(finish_s=notify_s)

    async def _check(self) -> dict[str, str | None]:
        parts: dict[str, Part] = {
            "objects": self._objects,
            "tasks": self.tasks,
            "authenticator": self._authenticator,
            "rate_limiter": self._limiter,
        }
        problems = await asyncio.gather(*(health_check(part) for part in parts.values()))
        return dict(zip(parts, problems, strict=True))
