"""The playground: a page at ``/`` that uses the edge from a browser. Serves the files in this folder as they are."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Sequence
from importlib.resources import files
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s3seg.web.operations import Handler, Operation, ResponseSpec, routes_of

_PAGE = "index.html"
_FILES = (
    "style.css",
    "page.js",
    "listing.js",
    "stage.js",
    "drawing.js",
    "colors.js",
    "rle.js",
    "service.js",
    "icon.svg",
    "example.svg",
)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_BASE_UNKNOWN = b'<meta name="s3seg-public-base" content="">'


def playground_routes(*, public_base: str, storage: Sequence[str] = ()) -> list[Route]:
    """Return the routes of the page and its files. Their URLs are relative, so the service may be mounted anywhere.

    Args:
        public_base: Base URL of images and masks; the page reads them through ``/files``.
        storage: URLs of other hosts that ``/files`` redirects to, which the page may then read from.
    """
    policy = _policy(storage)
    base_known = f'<meta name="s3seg-public-base" content="{html.escape(public_base)}">'.encode()
    page = _content(_PAGE).replace(_BASE_UNKNOWN, base_known)
    bodies = {"/": (_PAGE, page), **{f"/playground/{name}": (name, _content(name)) for name in _FILES}}
    return routes_of(
        [
            Operation(
                method="GET",
                path=path,
                handler=_handler(body, content_type=_content_type(name), policy=policy),
                summary=name,
                responses={200: ResponseSpec(description=name, content_type=_content_type(name))},
                secured=False,
            )
            for path, (name, body) in bodies.items()
        ]
    )


def _handler(body: bytes, *, content_type: str, policy: str) -> Handler:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",  # revalidated each time, so that all files are of one version after an update
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    async def serve(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        sent = headers | {"Content-Type": content_type, "Content-Length": str(len(body))}
        return Response(b"" if request.method == "HEAD" else body, headers=sent)

    return serve


def _policy(storage: Sequence[str]) -> str:
    """Allow the page to run only its own scripts, and to talk only to its own service and storage."""
    elsewhere = sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, storage)})
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",  # blob: is the picture that the user chose
            " ".join(("connect-src 'self'", *elsewhere)),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # text is inserted as text only
            "trusted-types 'none'",
        )
    )


def _content_type(name: str) -> str:
    return f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"


def _content(name: str) -> bytes:
    return (files(__name__) / name).read_bytes()
