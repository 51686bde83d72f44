"""Stores objects in a bucket of R2 that is bound to the Worker, without keys and without requests over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime
from typing import Any

from js import Blob, Headers  # pyright: ignore[reportMissingImports]
from pyodide.ffi import JsException, to_js  # pyright: ignore[reportMissingImports]

from s3seg.adapters.cloudflare.convert import is_nothing, js_bytes, js_object
from s3seg.adapters.cloudflare.presigning import PutSigner
from s3seg.errors import InvalidRequestError, NotFoundError, ObjectExistsError, UnavailableError
from s3seg.tasks.object_keys import CACHE_CONTROL, check_key, content_type_of, key_of_url, public_url
from s3seg.tasks.records import ObjectInfo, ObjectStream, PresignedPut

_CHUNK = 1 << 20


class R2BindingObjectStore:
    """An `ObjectStore` on an R2 binding. It presigns no URLs to read from: private objects are streamed by the edge.

    Args:
        bucket: The binding: an ``R2Bucket`` of JavaScript.
        public_base: Base URL under which the objects are served.
        signer: Signs requests to the same bucket over S3, so that clients can store pictures without the edge. A
            binding signs nothing itself, so without this the store takes no such requests.
    """

    def __init__(self, bucket: Any, *, public_base: str, signer: PutSigner | None = None) -> None:
        self._bucket = bucket
        self._base = public_base
        self._signer = signer
        self.takes_presigned_puts = signer is not None

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object, or raise ObjectExistsError if the key is taken."""
        content_type = content_type_of(key)
        # the binding copies a bare array byte by byte, which takes a minute for 10 MB
        content = Blob.new(to_js([js_bytes(body)]))
        options = {
            "onlyIf": Headers.new(to_js([["If-None-Match", "*"]])),
            "httpMetadata": {"contentType": content_type, "cacheControl": CACHE_CONTROL},
        }
        stored = await _answer(self._bucket.put(key, content, js_object(options)))
        if is_nothing(stored):
            raise ObjectExistsError("an object with this key already exists")
        return _info(stored)

    async def get(self, key: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        found = await self._find(key)
        return (await _answer(found.arrayBuffer())).to_bytes()

    async def stream(self, key: str) -> ObjectStream:
        """Return the object as a stream of chunks, or raise NotFoundError."""
        found = await self._find(key)
        return ObjectStream(info=_info(found), chunks=_chunks(found.body))

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        try:
            check_key(key)
        except InvalidRequestError:
            return
        await _answer(self._bucket.delete(key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Iterate over all objects whose key starts with ``prefix``."""
        asked: dict[str, Any] = {"prefix": prefix}
        while True:
            page = await _answer(self._bucket.list(js_object(asked)))
            for found in page.objects:
                try:
                    yield _info(found)
                except InvalidRequestError:
                    continue  # not an object of ours
            if not page.truncated:
                return
            asked["cursor"] = page.cursor

    async def discard_partial_writes(self, before: datetime) -> int:
        """Return 0: a put is a single request, which leaves nothing behind if it fails."""
        return 0

    def url(self, key: str) -> str:
        """Return the public URL of an object."""
        return public_url(self._base, key)

    def key_of(self, url: str) -> str | None:
        """Return the key of an object from its public URL, or None for any other URL."""
        return key_of_url(self._base, url)

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        """Return None: the public URL serves every object, from the bucket's own domain or through the edge."""
        return None

    async def presign_put(self, key: str, *, size_bytes: int, expires_s: int) -> PresignedPut | None:
        """Return a presigned PUT, or None if there is no signer."""
        return None if self._signer is None else self._signer.sign(key, size_bytes=size_bytes, expires_s=expires_s)

    async def check(self) -> None:
        """Check that the bucket answers."""
        await _answer(self._bucket.head("checks/none"))

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""

    async def _find(self, key: str) -> Any:
        try:
            check_key(key)
        except InvalidRequestError:
            raise NotFoundError("no such object") from None
        found = await _answer(self._bucket.get(key))
        if is_nothing(found):
            raise NotFoundError("no such object")
        return found


async def _answer(promise: Awaitable[Any]) -> Any:
    try:
        return await promise
    except JsException:
        raise UnavailableError("the object store cannot serve the request now") from None


async def _chunks(body: Any) -> AsyncIterator[bytes]:
    reader = body.getReader()
    while not (read := await _answer(reader.read())).done:
        piece = read.value.to_bytes()
        for start in range(0, len(piece), _CHUNK):
            yield piece[start : start + _CHUNK]


def _info(found: Any) -> ObjectInfo:
    """Read what R2 says of an object; raises InvalidRequestError if its key is not one of ours."""
    return ObjectInfo(
        key=found.key,
        size_bytes=int(found.size),
        content_type=content_type_of(found.key),
        modified_at=datetime.fromtimestamp(found.uploaded.getTime() / 1000, UTC),
    )
