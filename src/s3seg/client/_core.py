"""The calls of the client, as generators of steps; nothing here waits or uses the network itself."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from pydantic import BaseModel, SecretStr

from s3seg.api.additions import (
    BeginUploadResponse,
    ConceptResponse,
    ConceptsListResponse,
    DeletedAccountResponse,
    DeletedResponse,
    MeResponse,
    ProjectResponse,
    ProjectsListResponse,
)
from s3seg.api.edge import ResultDetailResponse, ResultsListResponse, SegmentResponse, TaskResponse, UploadResponse
from s3seg.client._archives import Beginning, continue_at, is_whole
from s3seg.client._images import EncodedImage, prepare
from s3seg.client._realtime import TaskChanges
from s3seg.client._settings import checked_token, checked_url
from s3seg.client._steps import (
    Call,
    Request,
    RetryPolicy,
    Sleep,
    SleepUnless,
    Steps,
    StoppedError,
    fetch,
    fetch_data,
)
from s3seg.client.arguments import (
    check_id,
    check_idempotency_key,
    check_numbers,
    check_objects,
    check_prompts,
    one_each,
    require_pictures,
    without_duplicates,
)
from s3seg.errors import InferenceError, InvalidRequestError, NotFoundError, S3segError, UnavailableError
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.concepts import Box
from s3seg.tasks.model import TaskStatus
from s3seg.tasks.tiles import Tile, checked_tile_of_service

if TYPE_CHECKING:
    from s3seg.images import ImageSource
    from s3seg.results.segmentation import Segmentation

_M = TypeVar("_M", bound=BaseModel)

DEFAULT_CONCURRENCY = 4
"""How many images `Client.segment_many` processes at a time by default."""

_LONGEST_PREFERRED_WAIT_S = 20
_STORAGE_RETRIES = RetryPolicy(retries=2, max_elapsed_s=60)
_SHORTEST_POLL_S = 0.1
_LONGEST_POLL_S = 2.0
_LONGEST_WAIT_S = 15.0  # between two reads of a task while Realtime reports changes
_REMAINING = re.compile(r";\s*r=(\d+)\s*;\s*t=(\d+)", re.ASCII)


@dataclass(slots=True)
class _Learnt:
    """What a client has learnt about its service.

    Attributes:
        takes_direct_uploads: Whether pictures can be sent straight to its storage; None if it was not asked yet.
    """

    takes_direct_uploads: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The calls of one client.

    Attributes:
        url: URL of the service, without a slash at the end.
        auth: Gives requests their access token.
        retry_policy: How often and how long to retry a request.
        changes: Reports when tasks change; None to poll.
        learnt: What is known about the service.
        preferred_wait_s: How long the service may hold back the answer to a submitted task, in case it ends.
    """

    url: str
    auth: httpx.Auth
    retry_policy: RetryPolicy
    changes: TaskChanges | None = None
    learnt: _Learnt = field(default_factory=_Learnt, repr=False)
    preferred_wait_s: float = _LONGEST_PREFERRED_WAIT_S

    def __repr__(self) -> str:
        return f"Core(url={self.url!r})"

    @classmethod
    def configured(cls, url: str | None, token: str | None, retry_policy: RetryPolicy | None) -> Core:
        """Create it from arguments, or from ``S3SEG_URL`` and ``S3SEG_TOKEN`` for those that are not given.

        Raises:
            ConfigurationError: The URL or the token is missing or not valid; the message does not repeat them.
        """
        return cls(
            url=checked_url(url or os.environ.get("S3SEG_URL", "")),
            auth=_TokenAuth(SecretStr(checked_token(token or os.environ.get("S3SEG_TOKEN", "")))),
            retry_policy=retry_policy or RetryPolicy(),
        )

    @classmethod
    def signed_in(cls, url: str | None, retry_policy: RetryPolicy | None, realtime: bool | None) -> Core:
        """Create it from the sign-in that is kept for a service, by default that of ``S3SEG_URL``.

        Raises:
            AuthRequiredError: There is none.
            ConfigurationError: The URL is missing or not valid, the sign-in is damaged, or a package is missing.
        """
        from s3seg.client.signin import SignedIn  # most clients have a token
        from s3seg.client.signin.signed_in import SignedInAuth

        address = checked_url(url or os.environ.get("S3SEG_URL", ""))
        signed_in = SignedIn(address)
        project = signed_in.project
        offered = project is not None and project.realtime
        changes = None
        if project is not None and (offered if realtime is None else realtime):
            changes = TaskChanges(project, signed_in.user_id, signed_in.access_token)
        return cls(
            url=address,
            auth=SignedInAuth(signed_in),
            retry_policy=retry_policy or RetryPolicy(),
            changes=changes,
        )

    def suited_to(self, read_timeout: float | None) -> Core:
        """Return the calls for an HTTP client that gives up after so many seconds without a byte; None never does."""
        longest = _LONGEST_PREFERRED_WAIT_S if read_timeout is None else read_timeout / 2
        return replace(self, preferred_wait_s=min(_LONGEST_PREFERRED_WAIT_S, longest))

    # ---- calls of one request ----

    def upload(
        self, image: ImageSource, *, project_id: str | None = None, expires_in_s: int | None = None
    ) -> Steps[UploadResponse]:
        require_pictures()
        prepared = yield Call(lambda: prepare(image))
        return (yield from self._upload(prepared, project_id, expires_in_s))

    def submit(
        self,
        image_url: str,
        prompt: str | Sequence[str],
        *,
        project_id: str | None = None,
        idempotency_key: str | None = None,
        expires_in_s: int | None = None,
        tile: Tile | None = None,
    ) -> Steps[SegmentResponse]:
        asked = _words(check_prompts(prompt), tile) | _given(expires_in_s=expires_in_s)
        task_id = yield from self._submit(image_url, asked, project_id, idempotency_key, wait_s=0)
        return SegmentResponse(task_id=task_id, status="pending")

    def task(self, task_id: str) -> Steps[TaskResponse]:
        return (yield from self._fetch("GET", f"/tasks/{check_id(task_id)}", TaskResponse))

    def cancel(self, task_id: str) -> Steps[TaskResponse]:
        return (yield from self._fetch("POST", f"/tasks/{check_id(task_id)}/cancel", TaskResponse))

    def results(
        self, *, project_id: str | None = None, page: int = 1, limit: int = 20, cursor: str | None = None
    ) -> Steps[ResultsListResponse]:
        params = _given(project_id=project_id, page=page, limit=limit, cursor=cursor)
        return (yield from self._fetch("GET", "/results", ResultsListResponse, params=params))

    def result(self, result_id: str) -> Steps[ResultDetailResponse]:
        return (yield from self._fetch("GET", f"/results/{check_id(result_id)}", ResultDetailResponse))

    def delete_result(self, result_id: str) -> Steps[None]:
        yield from self._fetch("DELETE", f"/results/{check_id(result_id)}", DeletedResponse)

    def delete_image(self, image_id: str) -> Steps[None]:
        yield from self._fetch("DELETE", f"/images/{check_id(image_id)}", DeletedResponse)

    def me(self) -> Steps[MeResponse]:
        return (yield from self._fetch("GET", "/me", MeResponse))

    def delete_account(self, confirm: str) -> Steps[DeletedAccountResponse]:
        return (yield from self._fetch("DELETE", "/me", DeletedAccountResponse, params={"confirm": check_id(confirm)}))

    def export_account(self, path: str | os.PathLike[str]) -> Steps[Path]:
        target = Path(path)
        partial = target.with_name(f"{target.name}.partial")
        if target.exists():
            raise InvalidRequestError(f"{target} exists already; remove it, or choose another name")
        failures, last = 0, None
        while True:
            begun: Beginning | None = yield Call(lambda: continue_at(partial))
            if begun is not None and (yield from self.me()).user_id != begun.user_id:
                raise InvalidRequestError(f"{partial} is the archive of another account; remove it")
            params = {} if begun is None else {"after": begun.cursor}
            request = replace(self._request("GET", "/me/export", params=params), save_to=partial)
            try:
                yield from self._append(request, partial)
            except UnavailableError as err:
                failures, last = (failures + 1 if begun == last else 1), begun
                if failures > self.retry_policy.retries:
                    raise
                yield Sleep(max(0.25 * 2**failures, err.retry_after))
            else:
                return (yield Call(lambda: partial.replace(target)))

    def _append(self, request: Request, partial: Path) -> Steps[None]:
        # not retried in there: what has arrived must not be appended twice
        yield from fetch(request, replace(self.retry_policy, retries=0))
        if not (yield Call(lambda: is_whole(partial))):
            raise UnavailableError(f"the answer of {self.url} ended before the archive did", retry_after=0)

    def projects(self, *, page: int = 1, limit: int = 20) -> Steps[ProjectsListResponse]:
        params = {"page": page, "limit": limit}
        return (yield from self._fetch("GET", "/projects", ProjectsListResponse, params=params))

    def create_project(self, name: str) -> Steps[ProjectResponse]:
        return (yield from self._fetch("POST", "/projects", ProjectResponse, repeatable=False, json={"name": name}))

    def rename_project(self, project_id: str, name: str) -> Steps[ProjectResponse]:
        return (
            yield from self._fetch("PATCH", f"/projects/{check_id(project_id)}", ProjectResponse, json={"name": name})
        )

    def delete_project(self, project_id: str) -> Steps[None]:
        yield from self._fetch("DELETE", f"/projects/{check_id(project_id)}", DeletedResponse)

    # ---- calls of several requests ----

    def wait(self, task_id: str, *, timeout: float, since: float | None = None) -> Steps[TaskResponse]:
        task_id = check_id(task_id)
        try:
            return (yield from self._wait(task_id, timeout, time.monotonic() if since is None else since))
        finally:
            if self.changes is not None:
                self.changes.forget(task_id)

    def segmentations(
        self, result_id: str, *, threshold: float | None = None, max_instances: int | None = None
    ) -> Steps[list[Segmentation]]:
        require_pictures()
        check_numbers(threshold, max_instances)
        result = yield from self.result(result_id)
        if result.status != TaskStatus.DONE:
            raise InvalidRequestError(f"result {result_id} is not available yet: its task is {result.status}")
        if result.metadata.instances_url is None:
            raise S3segError(f"result {result_id} has no list of instances; upgrade the service")
        # without the token: the URL is public, and it may be on another host
        request = Request(method="GET", url=result.metadata.instances_url, options={"follow_redirects": True})
        response = yield from fetch(request, self.retry_policy)
        from s3seg.results import instances_file  # imports numpy

        return (
            yield Call(lambda: instances_file.read(response.content, threshold=threshold, max_instances=max_instances))
        )

    def segment(
        self,
        image: ImageSource,
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        tile: Tile | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Steps[Any]:
        require_pictures()
        prompts = check_prompts(prompt)
        asked = _words(prompts, tile)
        check_numbers(threshold, max_instances)
        prepared: EncodedImage = yield Call(lambda: prepare(image))
        uploaded = yield from self._upload(prepared, project_id)
        found = yield from self._finish(
            uploaded.image_url,
            asked,
            project_id,
            timeout=timeout,
            threshold=threshold,
            max_instances=max_instances,
        )
        results = [replace(one, **prepared.shown, timings=dict(one.timings)) for one in one_each(prompts, found)]
        return results[0] if isinstance(prompt, str) else results

    def click(
        self,
        image: ImageSource,
        objects: Sequence[Clicks],
        *,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Steps[list[Segmentation]]:
        require_pictures()
        unique = check_objects(objects)
        prepared: EncodedImage = yield Call(lambda: prepare(image))
        uploaded = yield from self._upload(prepared, project_id)
        asked = {"clicks": [one.to_dict() for one in unique]}
        found = yield from self._finish(uploaded.image_url, asked, project_id, timeout=timeout)
        by_object = dict(zip(unique, found, strict=True))
        return [replace(by_object[one], prompt="", **prepared.shown) for one in objects]

    def create_concept(
        self,
        name: str,
        examples: Sequence[tuple[ImageSource, Sequence[Box], Sequence[Box]]],
        *,
        words: str | None = None,
    ) -> Steps[ConceptResponse]:
        shown = []
        for image, boxes, negative_boxes in examples:
            uploaded = yield from self.upload(image)
            corners = {"boxes": [list(box) for box in boxes], "negative_boxes": [list(box) for box in negative_boxes]}
            shown.append({"image_url": uploaded.image_url, **corners})
        body = {"name": name, "examples": shown, **_given(words=words)}
        return (yield from self._fetch("POST", "/concepts", ConceptResponse, repeatable=False, json=body))

    def concepts(self) -> Steps[list[ConceptResponse]]:
        return (yield from self._fetch("GET", "/concepts", ConceptsListResponse)).concepts

    def delete_concept(self, concept_id: str) -> Steps[None]:
        yield from self._fetch("DELETE", f"/concepts/{check_id(concept_id)}", DeletedResponse)

    def segment_concept(
        self,
        image: ImageSource,
        concept_id: str,
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Steps[Segmentation]:
        require_pictures()
        asked = {"concept_id": check_id(concept_id)}
        check_numbers(threshold, max_instances)
        prepared: EncodedImage = yield Call(lambda: prepare(image))
        uploaded = yield from self._upload(prepared, project_id)
        (found,) = yield from self._finish(
            uploaded.image_url,
            asked,
            project_id,
            timeout=timeout,
            threshold=threshold,
            max_instances=max_instances,
        )
        return replace(found, **prepared.shown)

    # ---- helpers ----

    def _finish(
        self,
        image_url: str,
        asked: dict[str, Any],
        project_id: str | None,
        *,
        timeout: float,
        threshold: float | None = None,
        max_instances: int | None = None,
    ) -> Steps[list[Segmentation]]:
        """Submit a task, wait for its end, and read its results."""
        live = self.changes is not None and self.changes.is_live
        wait_s = 0 if live else int(min(self.preferred_wait_s, timeout))
        since = time.monotonic()
        task_id = yield from self._submit(image_url, asked, project_id, None, wait_s=wait_s)
        try:
            task = yield from self.wait(task_id, timeout=timeout, since=since)
        except (TimeoutError, StoppedError):
            yield from self.cancel(task_id)  # refunds the task, since its result will not be used
            raise
        if task.status == TaskStatus.ERROR:
            raise InferenceError(f"{task.error_message} (task {task_id}; its credits were refunded)")
        return (yield from self.segmentations(task_id, threshold=threshold, max_instances=max_instances))

    def _wait(self, task_id: str, timeout: float, since: float) -> Steps[TaskResponse]:
        give_up = since + timeout
        interval = _SHORTEST_POLL_S
        request = self._request("GET", f"/tasks/{task_id}")
        while True:
            # asked for before the task is read, so that a change while it is read counts
            change = None if self.changes is None else self.changes.next(task_id)
            response = yield from fetch_data(request, TaskResponse, self.retry_policy)
            if response.data.status in (TaskStatus.DONE, TaskStatus.ERROR):
                return response.data
            left = give_up - time.monotonic()
            if left < interval:
                raise TimeoutError(f"task {task_id} is still {response.data.status} after {timeout:g} seconds")
            pause = max(interval, _polling_interval(response.headers.get("ratelimit", "")))
            if self.changes is None or change is None:
                yield Sleep(pause)
            else:
                self.changes.start()
                yield SleepUnless(change, min(left, _LONGEST_WAIT_S if self.changes.is_live else pause))
            interval = min(_LONGEST_POLL_S, 1.5 * interval)

    def _upload(
        self, image: EncodedImage, project_id: str | None, expires_in_s: int | None = None
    ) -> Steps[UploadResponse]:
        fields = _given(project_id=project_id, expires_in_s=expires_in_s)
        stored = yield from self._upload_to_storage(image, fields)
        if stored is not None:
            return stored
        # a repeated upload may leave an unused image behind, which is better than failing
        file = ("picture", image.data, image.content_type)
        return (yield from self._fetch("POST", "/upload", UploadResponse, files={"file": file}, data=fields))

    def _upload_to_storage(self, image: EncodedImage, fields: dict[str, Any]) -> Steps[UploadResponse | None]:
        """Send a picture straight to the storage of the service, without this client's token.

        Returns:
            None if the service does not offer it, or the storage did not take it.
        """
        if self.learnt.takes_direct_uploads is None:
            self.learnt.takes_direct_uploads = yield from self._offers_direct_uploads()
        if not self.learnt.takes_direct_uploads:
            return None
        asked = {"content_type": image.content_type, "size_bytes": len(image.data)}
        begun = yield from self._fetch("POST", "/uploads", BeginUploadResponse, json=asked)
        options = {"headers": begun.headers, "content": image.data}
        put = Request(method=begun.method, url=begun.url, options=options)
        with contextlib.suppress(S3segError):  # it may be stored all the same, with only the answer lost
            yield from fetch(put, _STORAGE_RETRIES)
        try:
            return (yield from self._fetch("POST", f"/uploads/{begun.upload_id}/complete", UploadResponse, json=fields))
        except NotFoundError:  # it is not stored: the storage may be out of this machine's reach
            self.learnt.takes_direct_uploads = False
            return None

    def _offers_direct_uploads(self) -> Steps[bool]:
        """Ask the service, which may be too old to know; any answer but a plain yes is a no."""
        try:
            response = yield from fetch(Request(method="GET", url=f"{self.url}/health"), _STORAGE_RETRIES)
            return response.json()["data"].get("direct_uploads") is True
        except (S3segError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def _submit(
        self,
        image_url: str,
        asked: dict[str, Any],
        project_id: str | None,
        idempotency_key: str | None,
        *,
        wait_s: int,
    ) -> Steps[str]:
        body = {"image_url": image_url, **asked, **_given(project_id=project_id)}
        headers = {
            "Idempotency-Key": str(uuid.uuid4()) if idempotency_key is None else check_idempotency_key(idempotency_key)
        }
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        response = yield from fetch(self._request("POST", "/segment", json=body, headers=headers), self.retry_policy)
        return str(response.json()["data"]["task_id"])

    def _fetch(self, method: str, path: str, model: type[_M], *, repeatable: bool = True, **options: Any) -> Steps[_M]:
        request = self._request(method, path, repeatable=repeatable, **options)
        return (yield from fetch_data(request, model, self.retry_policy)).data

    def _request(self, method: str, path: str, *, repeatable: bool = True, **options: Any) -> Request:
        return Request(
            method=method,
            url=f"{self.url}/api/v1{path}",
            repeatable=repeatable,
            options={"auth": self.auth, **options},
        )


class _TokenAuth(httpx.Auth):
    """Gives requests one access token."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _words(prompts: Sequence[str], tile: Tile | None) -> dict[str, Any]:
    """Return the part of a request that says what to look for."""
    unique = without_duplicates(prompts)
    asked: dict[str, Any] = {"text_prompt": unique[0]} if len(unique) == 1 else {"text_prompts": unique}
    tile = checked_tile_of_service(tile)
    return asked if tile is None else {**asked, "tile": tile}


def _polling_interval(rate_limit: str) -> float:
    """Return the least seconds between two polls with which the rate limit lasts until its next reset."""
    found = _REMAINING.search(rate_limit)
    if found is None:
        return 0.0
    remaining, reset_s = int(found[1]), int(found[2])
    return 0.0 if remaining > 30 else reset_s / (remaining + 1)
