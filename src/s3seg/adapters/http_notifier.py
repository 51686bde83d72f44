"""Notifies the gpu service of new tasks over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx

from s3seg.api.gpu import BatchPredictRequest, PredictRequest
from s3seg.errors import ConfigurationError, UnavailableError
from s3seg.tasks.model import Task

_log = logging.getLogger(__name__)
_MAX_CONNECTIONS = 64


class HttpNotifier:
    """A `WorkerNotifier` that calls ``POST /api/v1/predict`` or ``/predict/batch`` of the gpu service.

    The response is not used. A call that fails is logged and not repeated, because the claim loop of a worker finds
    the task anyway. The connection stays open until the gpu service has answered, since it drops requests whose
    client has disconnected.

    Args:
        url: Base URL of the gpu service.
        api_key: The API key of the gpu service.
        request_id: Returns the id of the current request, which is passed on; None if there is none.
        timeout_s: Seconds to wait for a response.
        transport: An httpx transport to use instead of the network.
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
        """Call the gpu service and wait until it has answered; failures are logged."""
        headers = self._headers()
        request_id = self._request_id()
        if request_id is not None:
            headers["X-Request-Id"] = request_id
        path, body = _call(task)
        try:
            response = await self._connected().post(f"{self._url}{path}", content=body, headers=headers)
        except httpx.HTTPError as err:
            _log.warning(
                "cannot reach the gpu service, leaving the task to the claim loop: %s",
                type(err).__name__,
                extra={"task_id": task.task_id},
            )
            return
        if not response.is_success:
            # a 401 is a configuration error that shows nowhere else
            level = logging.ERROR if response.status_code == 401 else logging.INFO
            _log.log(level, "gpu service responded with %d", response.status_code, extra={"task_id": task.task_id})

    async def check(self) -> None:
        """Check that the gpu service responds."""
        try:
            response = await self._connected().get(f"{self._url}/health", timeout=5.0)
            response.raise_for_status()
        except httpx.HTTPError as err:
            raise UnavailableError(f"the gpu service does not answer: {type(err).__name__}") from err

    async def probe(self) -> None:
        """Check that the gpu service accepts the API key.

        Raises:
            ConfigurationError: It does not.
            UnavailableError: The gpu service does not respond.
        """
        try:
            response = await self._connected().get(
                f"{self._url}/api/v1/model/info", headers=self._headers(), timeout=5.0
            )
        except httpx.HTTPError as err:
            # without its message, which quotes the key if that cannot be sent
            raise UnavailableError(f"the gpu service does not answer: {type(err).__name__}") from None
        if response.status_code == 401:
            raise ConfigurationError(
                "the gpu service does not accept API_SECRET_KEY; set it to the same value in both services"
            )

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _headers(self) -> httpx.Headers:
        # the gpu service compares the bytes of the key, in UTF-8
        return httpx.Headers({"X-API-Key": self._api_key, "Content-Type": "application/json"}, encoding="utf-8")

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout,
                transport=self._transport,
                limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=8),
                trust_env=False,  # do not send the key through a proxy that the environment names
            )
        return self._client


def _call(task: Task) -> tuple[str, str]:
    if len(task.prompts) == 1:
        one = PredictRequest(
            image_url=task.source_image_url,
            text_prompt=task.text_prompt,
            user_id=task.user_id,
            task_id=task.task_id,
            clicks=None,
            tile=None,
        )
        return "/api/v1/predict", one.model_dump_json()
    several = BatchPredictRequest(
        image_url=task.source_image_url,
        prompts=list(task.prompts),
        user_id=task.user_id,
        task_id=task.task_id,
        tile=None,
    )
    return "/api/v1/predict/batch", several.model_dump_json()
