"""What each call of the client does, as steps; nothing here waits or touches the network."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from s3seg.api.additions import DeletedResponse, MeResponse, ProjectResponse, ProjectsListResponse
from s3seg.api.edge import ResultDetailResponse, ResultsListResponse, SegmentResponse, TaskResponse, UploadResponse
from s3seg.api.fields import check_prompt
from s3seg.client._pictures import Picture, prepare
from s3seg.client._steps import Pause, RetryPolicy, Send, Steps, Work, ask, fetch
from s3seg.errors import ConfigurationError, InferenceError, InvalidRequestError, PromptError, S3segError
from s3seg.images import ImageSource
from s3seg.results import instances_file
from s3seg.results.segmentation import Segmentation
from s3seg.tasks.limits import MAX_PROMPTS
from s3seg.tasks.model import TaskStatus

PICTURES_AT_ONCE = 4
"""Pictures under way together where many are segmented, unless the caller says otherwise."""

_PREFERRED_WAIT_S = 20
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_REMAINING = re.compile(r";\s*r=(\d+)\s*;\s*t=(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The calls of one client.

    Attributes:
        url: Of the edge, without a slash at its end.
        token: The access token; never shown in a repr.
        patience: How often to try again.
    """

    url: str
    token: str
    patience: RetryPolicy

    def __repr__(self) -> str:
        return f"Core(url={self.url!r})"

    @classmethod
    def configured(cls, url: str | None, token: str | None, patience: RetryPolicy | None) -> Core:
        """With what is not given taken from ``S3SEG_URL`` and ``S3SEG_TOKEN``.

        Raises:
            ConfigurationError: If there is no address or no token.
        """
        url = url or os.environ.get("S3SEG_URL", "")
        token = token or os.environ.get("S3SEG_TOKEN", "")
        if not re.match(r"https?://[^/]", url):
            raise ConfigurationError(f"the service's address must begin with http:// or https://, got {url!r}")
        if not token:
            raise ConfigurationError("no access token; pass token=..., or set S3SEG_TOKEN (`s3seg token` prints one)")
        return cls(url=url.rstrip("/"), token=token, patience=patience or RetryPolicy())

    # ---- one request each ----

    def upload(self, image: ImageSource, *, project_id: str | None = None) -> Steps[UploadResponse]:
        picture = yield Work(lambda: prepare(image))
        return (yield from self._upload(picture, project_id))

    def submit(
        self,
        image_url: str,
        prompt: str | Sequence[str],
        *,
        project_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[SegmentResponse]:
        task_id = yield from self._submit(image_url, _checked(prompt), project_id, idempotency_key, wait_s=0)
        return SegmentResponse(task_id=task_id, status="pending")

    def task(self, task_id: str) -> Steps[TaskResponse]:
        return (yield from ask(self._send("GET", f"/tasks/{_id(task_id)}"), TaskResponse, self.patience)).data

    def cancel(self, task_id: str) -> Steps[TaskResponse]:
        send = self._send("POST", f"/tasks/{_id(task_id)}/cancel")
        return (yield from ask(send, TaskResponse, self.patience)).data

    def results(
        self, *, project_id: str | None = None, page: int = 1, limit: int = 20, cursor: str | None = None
    ) -> Steps[ResultsListResponse]:
        query = {"project_id": project_id, "page": page, "limit": limit, "cursor": cursor}
        params = {name: value for name, value in query.items() if value is not None}
        return (yield from ask(self._send("GET", "/results", params=params), ResultsListResponse, self.patience)).data

    def result(self, result_id: str) -> Steps[ResultDetailResponse]:
        send = self._send("GET", f"/results/{_id(result_id)}")
        return (yield from ask(send, ResultDetailResponse, self.patience)).data

    def delete_result(self, result_id: str) -> Steps[None]:
        yield from self._delete(f"/results/{_id(result_id)}")

    def delete_image(self, image_id: str) -> Steps[None]:
        yield from self._delete(f"/images/{_id(image_id)}")

    def me(self) -> Steps[MeResponse]:
        return (yield from ask(self._send("GET", "/me"), MeResponse, self.patience)).data

    def projects(self, *, page: int = 1, limit: int = 20) -> Steps[ProjectsListResponse]:
        send = self._send("GET", "/projects", params={"page": page, "limit": limit})
        return (yield from ask(send, ProjectsListResponse, self.patience)).data

    def create_project(self, name: str) -> Steps[ProjectResponse]:
        send = self._send("POST", "/projects", repeatable=False, json={"name": name})
        return (yield from ask(send, ProjectResponse, self.patience)).data

    def rename_project(self, project_id: str, name: str) -> Steps[ProjectResponse]:
        send = self._send("PATCH", f"/projects/{_id(project_id)}", json={"name": name})
        return (yield from ask(send, ProjectResponse, self.patience)).data

    def delete_project(self, project_id: str) -> Steps[None]:
        yield from self._delete(f"/projects/{_id(project_id)}")

    # ---- several ----

    def wait(self, task_id: str, *, timeout: float) -> Steps[TaskResponse]:
        give_up = time.monotonic() + timeout
        pause = _SHORTEST_PAUSE_S
        while True:
            answer = yield from ask(self._send("GET", f"/tasks/{_id(task_id)}"), TaskResponse, self.patience)
            if answer.data.status in (TaskStatus.DONE, TaskStatus.ERROR):
                return answer.data
            if time.monotonic() + pause > give_up:
                raise TimeoutError(f"task {task_id} is still {answer.data.status} after {timeout:g} seconds")
            yield Pause(max(pause, _fair_pause(answer.headers.get("ratelimit", ""))))
            pause = min(_LONGEST_PAUSE_S, 1.5 * pause)

    def segmentations(
        self, result_id: str, *, threshold: float | None = None, max_instances: int | None = None
    ) -> Steps[list[Segmentation]]:
        _check_numbers(threshold, max_instances)
        result = yield from self.result(result_id)
        if result.status != TaskStatus.DONE:
            raise InvalidRequestError(f"result {result_id} is not there yet: its task is {result.status}")
        if result.metadata.instances_url is None:
            raise S3segError(f"result {result_id} has no list of instances; the service is too old")
        # no token: whoever knows the address may read it, and it may well be another host's
        send = Send(method="GET", url=result.metadata.instances_url, options={"follow_redirects": True})
        response = yield from fetch(send, self.patience)
        return (
            yield Work(lambda: instances_file.read(response.content, threshold=threshold, max_instances=max_instances))
        )

    def segment(
        self,
        image: ImageSource,
        prompt: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        project_id: str | None = None,
        timeout: float = 600.0,
    ) -> Steps[Any]:
        prompts = _checked(prompt)
        _check_numbers(threshold, max_instances)
        picture: Picture = yield Work(lambda: prepare(image))
        stored = yield from self._upload(picture, project_id)
        task_id = yield from self._submit(stored.image_url, prompts, project_id, None, wait_s=_PREFERRED_WAIT_S)
        try:
            task = yield from self.wait(task_id, timeout=timeout)
        except TimeoutError:
            yield from self.cancel(task_id)  # nobody waits for it any more, so nobody should pay for it
            raise
        if task.status == TaskStatus.ERROR:
            raise InferenceError(f"{task.error_message} (task {task_id}, refunded)")
        found = yield from self.segmentations(task_id, threshold=threshold, max_instances=max_instances)
        results = [replace(one, source=picture.source, image=picture.pixels) for one in found]
        return results[0] if isinstance(prompt, str) else results

    # ---- inside ----

    def _upload(self, picture: Picture, project_id: str | None) -> Steps[UploadResponse]:
        # a repeat leaves an image that nobody uses, which is better than a failed run
        send = self._send(
            "POST",
            "/upload",
            files={"file": ("picture", picture.data, picture.content_type)},
            data={} if project_id is None else {"project_id": project_id},
        )
        return (yield from ask(send, UploadResponse, self.patience)).data

    def _submit(
        self,
        image_url: str,
        prompts: list[str],
        project_id: str | None,
        idempotency_key: str | None,
        *,
        wait_s: int,
    ) -> Steps[str]:
        body: dict[str, Any] = {"image_url": image_url}
        body |= {"text_prompt": prompts[0]} if len(prompts) == 1 else {"text_prompts": prompts}
        if project_id is not None:
            body["project_id"] = project_id
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        response = yield from fetch(self._send("POST", "/segment", json=body, headers=headers), self.patience)
        return str(response.json()["data"]["task_id"])

    def _delete(self, path: str) -> Steps[None]:
        yield from ask(self._send("DELETE", path), DeletedResponse, self.patience)

    def _send(self, method: str, path: str, *, repeatable: bool = True, **options: Any) -> Send:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return Send(
            method=method,
            url=f"{self.url}/api/v1{path}",
            repeatable=repeatable,
            options={"headers": headers, **options},
        )


def _checked(prompt: str | Sequence[str]) -> list[str]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise PromptError(f"the service takes 1 to {MAX_PROMPTS} prompts at a time, not {len(prompts)}")
    for one in prompts:
        if not isinstance(one, str):
            raise PromptError(f"a prompt must be text, got {type(one).__name__}: {one!r:.60}")
        try:
            check_prompt(one)
        except ValueError as err:
            raise PromptError(str(err)) from None
    return prompts


def _check_numbers(threshold: float | None, max_instances: int | None) -> None:
    if threshold is not None and not instances_file.MIN_SCORE <= threshold <= 1:
        raise InvalidRequestError(
            f"the threshold is a score between {instances_file.MIN_SCORE} (the service keeps none below) and 1, "
            f"got {threshold}"
        )
    if max_instances is not None and max_instances < 1:
        raise InvalidRequestError(f"max_instances must be 1 or more, got {max_instances}")


def _id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise InvalidRequestError(f"an id is a UUID, got {text!r:.60}") from None


def _fair_pause(rate_limit: str) -> float:
    """Seconds to leave between polls so that what remains of the limit lasts until there is more."""
    found = _REMAINING.search(rate_limit)
    if found is None:
        return 0.0
    remaining, reset_s = int(found[1]), int(found[2])
    return 0.0 if remaining > 30 else reset_s / (remaining + 1)
