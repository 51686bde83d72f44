"""The object store inside a Worker under test, as an `ObjectStore` outside: for the suite, and for the gpu service."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx

from s3seg import errors
from s3seg.app.settings import Settings
from s3seg.tasks.records import ObjectInfo, ObjectStream, PresignedPut


class RemoteObjectStore:
    """Passes every call on to the store in the Worker, which does all the work."""

    takes_presigned_puts = False  # as the store in the Worker says; the suite asks it to sign nevertheless

    def __init__(self, url: str) -> None:
        self._url = url

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        (info,) = (await self._call("put", content=body, key=key)).json()
        return _info(info)

    async def get(self, key: str) -> bytes:
        return (await self._call("get", key=key)).content

    async def stream(self, key: str) -> ObjectStream:
        answer = await self._call("stream", key=key)

        async def chunks() -> AsyncIterator[bytes]:
            at = 0
            for length in json.loads(answer.headers["x-lengths"]):
                yield answer.content[at : at + length]
                at += length

        return ObjectStream(info=_info(json.loads(answer.headers["x-info"])), chunks=chunks())

    async def delete(self, key: str) -> None:
        await self._call("delete", key=key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        for info in (await self._call("list", prefix=prefix)).json():
            yield _info(info)

    async def discard_partial_writes(self, before: datetime) -> int:
        return (await self._call("call", name="discard_partial_writes", arguments={"before": None})).json()

    def url(self, key: str) -> str:
        return self._ask("url", key=key)

    def key_of(self, url: str) -> str | None:
        return self._ask("key_of", url=url)

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        return (await self._call("call", name="presign", arguments={"key": key, "expires_s": expires_s})).json()

    async def presign_put(self, key: str, *, size_bytes: int, expires_s: int) -> PresignedPut | None:
        arguments = {"key": key, "size_bytes": size_bytes, "expires_s": expires_s}
        return (await self._call("call", name="presign_put", arguments=arguments)).json()

    async def check(self) -> None:
        await self._call("call", name="check", arguments={})

    async def aclose(self) -> None:
        await self._call("call", name="aclose", arguments={})

    async def _call(self, operation: str, *, content: bytes = b"", **arguments: Any) -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as http:
            return _checked(await http.post(**self._request(operation, arguments), content=content))

    def _ask(self, name: str, **arguments: Any) -> Any:
        request = self._request("call", {"name": name, "arguments": arguments})
        return _checked(httpx.post(**request, timeout=60)).json()

    def _request(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        encoded = base64.b64encode(json.dumps(arguments).encode()).decode()
        return {"url": f"{self._url}/__test/{operation}", "headers": {"x-arguments": encoded}}


def from_settings(settings: Settings) -> RemoteObjectStore:
    """Make the store of a gpu service, whose public base URL is that of the Worker's /files."""
    return RemoteObjectStore(settings.public_base_url.removesuffix("/files"))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code == 409:
        said = answer.json()
        raise getattr(errors, said["error"])(said["message"])
    answer.raise_for_status()
    return answer


def _info(fields: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(**{**fields, "modified_at": datetime.fromisoformat(fields["modified_at"])})
