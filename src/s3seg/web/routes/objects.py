"""Stored objects, for anyone who knows their key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from s3seg.edge import Edge
from s3seg.tasks.object_keys import CACHE_CONTROL
from s3seg.web.etags import IF_NONE_MATCH, not_modified
from s3seg.web.operations import Operation, ResponseSpec

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",  # no scripts, whatever the file is
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": CACHE_CONTROL,
}


class ObjectRoutes:
    """GET /files/{key}."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/files/{key:path}",
                handler=self.get,
                summary="Get an image, a mask or a list of instances by its key",
                headers=IF_NONE_MATCH,
                responses={
                    200: ResponseSpec(
                        description="The object",
                        content_type="application/octet-stream",
                        headers={"ETag": "For If-None-Match"},
                    ),
                    304: ResponseSpec(description="The object still exists", content_type=None),
                    302: ResponseSpec(
                        description="The object is in a private store; the URL is valid for a few minutes",
                        content_type=None,
                        headers={"Location": "A presigned URL"},
                    ),
                },
                errors=("NOT_FOUND", "UNAVAILABLE"),
                secured=False,
                tag="objects",
            ),
        )

    async def get(self, request: Request) -> Response:
        """Stream an object, or redirect to it; whoever knows the key may read it."""
        key = request.path_params["key"]
        opened = await self._edge.open_object(key)
        if isinstance(opened, str):
            return RedirectResponse(opened, 302, {"Cache-Control": "no-store"})
        etag = f'"{PurePosixPath(key).stem}"'  # objects never change, and no key is used twice
        unchanged = not_modified(request, etag)
        if unchanged is not None:
            unchanged.headers.update(_HEADERS)
            return unchanged
        headers = {**_HEADERS, "ETag": etag, "Content-Length": str(opened.info.size_bytes)}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=opened.info.content_type)
        return StreamingResponse(opened.chunks, headers=headers, media_type=opened.info.content_type)
