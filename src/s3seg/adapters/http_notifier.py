"""Telling the gpu service of work, over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx

from s3seg.api.gpu import BatchPredictRequest, PredictRequest
from s3seg.errors import ConfigurationError, UnavailableError
from s3seg.tasks.model import Task

_log = logging.getLogger("s3seg.inference.pipeline")
_AT_ONCE = 64


class HttpNotifier:
    """A `WorkerNotifier` that calls ``POST /api/v1/predict`` or ``/predict/batch``, and does not need the answer.

    A call that is lost, refused or cut off is logged and forgotten: the claim loops find the task. It is held open
    while the gpu service works, since that drops requests whose client has gone.

    Args:
        url: Where the gpu service is.
        api_key: Its key.
        request_id: Gives the id of the request at hand, to be passed on; None if there is none.
        timeout_s: Seconds to wait for an answer.
        transport: What carries the requests; for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        request_id: Callable[[], str | None] = lambda: None,
        timeout_s: float = 900.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._request_id = request_id
        self._timeout = httpx.Timeout(5.0, read=timeout_s)
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def wake(self, task: Task) -> None:
        """See `WorkerNotifier.wake`."""
        headers = self._headers()
        request_id = self._request_id()
        if request_id is not None:
            headers["X-Request-Id"] = request_id
        path, body = _call(task)
        try:
            response = await self._connected().post(f"{self._url}{path}", content=body, headers=headers)
        except httpx.HTTPError as err:
            _log.warning("gpu service not reached: %s", type(err).__name__, extra={"task_id": task.task_id})
            return
        if not response.is_success:
            # 401 is a mistake of ours that nobody else will see
            level = logging.ERROR if response.status_code == 401 else logging.INFO
            _log.log(level, "gpu service answered %d", response.status_code, extra={"task_id": task.task_id})

    async def check(self) -> None:
        """See `Part.check`."""
        try:
            response = await self._connected().get(f"{self._url}/health", timeout=5.0)
            response.raise_for_status()
        except httpx.HTTPError as err:
            raise UnavailableError(f"the gpu service does not answer: {type(err).__name__}") from err

    async def probe(self) -> None:
        """Show the key: whether it is the gpu service's too.

        Raises:
            ConfigurationError: It is not.
            UnavailableError: The gpu service does not answer.
        """
        try:
            response = await self._connected().get(
                f"{self._url}/api/v1/model/info", headers=self._headers(), timeout=5.0
            )
        except httpx.HTTPError as err:
            raise UnavailableError(f"the gpu service does not answer: {type(err).__name__}") from err
        if response.status_code == 401:
            raise ConfigurationError("the gpu service has another API_SECRET_KEY; set both to the same value")

    async def aclose(self) -> None:
        """See `Part.aclose`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _headers(self) -> httpx.Headers:
        # as the gpu service reads it, which compares bytes
        return httpx.Headers({"X-API-Key": self._api_key, "Content-Type": "application/json"}, encoding="utf-8")

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout,
                transport=self._transport,
                limits=httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=8),
                trust_env=False,  # a proxy of the environment is no place for the key
            )
        return self._client


def _call(task: Task) -> tuple[str, str]:
    if len(task.prompts) == 1:
        one = PredictRequest(
            image_url=task.source_image_url,
            text_prompt=task.text_prompt,
            user_id=task.user_id,
            task_id=task.task_id,
        )
        return "/api/v1/predict", one.model_dump_json()
    several = BatchPredictRequest(
        image_url=task.source_image_url,
        prompts=list(task.prompts),
        user_id=task.user_id,
        task_id=task.task_id,
    )
    return "/api/v1/predict/batch", several.model_dump_json()
