"""The edge service on files, SQLite and local tokens, called in-process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from s3seg.adapters.local_auth import user_id_of
from s3seg.app import Parts, edge_app, local_keys
from s3seg.app.settings import Settings
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Task
from s3seg.testing.harness import outcome_for
from tests.helpers.pictures import encoded


class Running:
    """An edge service, an HTTP client, and the parts behind the service."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        chosen = {"rate_limits": "off", "decode_processes": 0, **settings}  # no process to start for each test
        self.settings = Settings(_env_file=None, data_dir=folder, **chosen)  # type: ignore[call-arg]
        self.parts = Parts(self.settings)
        self.app = edge_app(parts=self.parts)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://edge.example")

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.parts.aclose()

    async def user(self, name: str = "ann", *, tier: Tier | None = None, credits: int = 10) -> User:
        account = await self.parts.accounts.ensure(user_id_of(name), tier=tier)
        if account.credits != credits:
            await self.parts.accounts.adjust(account.user_id, credits - account.credits)
        return User(self, local_keys(self.settings).mint(name, tier=tier))

    async def finish(self, task_id: str, **metadata: Any) -> Task:
        """Finish the task as a worker does, without a model."""
        claim = await self.parts.task_queue.claim("worker", task_id, lease_s=60)
        assert claim is not None
        outcome = outcome_for(claim.task)
        for key in outcome.object_keys:
            await self.parts.objects.put(key, encoded() if key.endswith("png") else b"{}")
        return await self.parts.task_queue.finish(claim.lease, outcome)


class User:
    """A user with a token, called to send requests."""

    def __init__(self, service: Running, token: str) -> None:
        self._service = service
        self.token = token

    async def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **request.pop("headers", {})}
        return await self._service.http.request(method, path, headers=headers, **request)

    async def upload(self, data: bytes | None = None, **fields: str) -> httpx.Response:
        files = {"file": ("cat.png", encoded() if data is None else data, "image/png")}
        return await self("POST", "/api/v1/upload", files=files, data=fields)

    async def image_url(self) -> str:
        uploaded = await self.upload()
        assert uploaded.status_code == 200, uploaded.text
        return uploaded.json()["data"]["image_url"]

    async def segment(self, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        body = {"image_url": await self.image_url(), "text_prompt": "cat"} | body
        return await self("POST", "/api/v1/segment", json=body, headers=headers or {})

    async def task_id(self) -> str:
        return (await self.segment()).json()["data"]["task_id"]

    async def credits(self) -> int:
        return (await self("GET", "/api/v1/me")).json()["data"]["credits"]


@contextlib.asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Running]:
    service = Running(folder, **settings)
    try:
        yield service
    finally:
        await service.aclose()
