"""Content that is the same for everybody: its bytes and its tag are made once, not for each request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


class StaticContent:
    """A body with its ``ETag``; a client that has it already is answered 304.

    Args:
        body: The bytes.
        content_type: Their type.
        headers: Further headers of the answers. Caches ask each time whether the body has changed, unless these say
            otherwise.
    """

    def __init__(self, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._body = body
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._kept = {"Cache-Control": "no-cache", **(headers or {}), "ETag": self._etag}
        self._sent = self._kept | {"Content-Type": content_type, "Content-Length": str(len(body))}

    def answer(self, request: Request) -> Response:
        """Answer a GET or a HEAD."""
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=self._kept)
        return Response(b"" if request.method == "HEAD" else self._body, headers=self._sent)
