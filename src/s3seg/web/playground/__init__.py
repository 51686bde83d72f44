"""The playground: a page at ``/`` that uses the edge from a browser. Serves the files in this folder as they are."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s3seg.web.envelope import mount_path
from s3seg.web.operations import Handler, Operation, ResponseSpec, routes_of
from s3seg.web.static import StaticContent

_PAGE = "index.html"
_MAX_KEPT = 16  # pages with links for different paths
_FILES = (
    "account.js",
    "chosen.js",
    "code.js",
    "codepanel.js",
    "colors.js",
    "concepts.js",
    "cutouts.js",
    "dom.js",
    "drawing.js",
    "example.svg",
    "examples.js",
    "exports.js",
    "hints.js",
    "icon.svg",
    "items.js",
    "listing.js",
    "marks.js",
    "memory.js",
    "page.js",
    "past.js",
    "picture.js",
    "polygons.js",
    "progress.js",
    "prompts.js",
    "requests.js",
    "results.js",
    "rle.js",
    "searches.js",
    "service.js",
    "stage.js",
    "style.css",
    "tiles.js",
    "zip.js",
)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_BASE_UNKNOWN = b'<meta name="s3seg-public-base" content="">'
_HOME_UNKNOWN = b'<meta name="s3seg-home" content="">'
_LINK = re.compile(rb'(href|src)="((?:playground/|openapi\.json)[^"]*)')


def playground_routes(*, public_base: str, storage: Sequence[str] = ()) -> list[Route]:
    """Return the routes of the page and its files. Their URLs are relative, or begin with the path of the service.

    Args:
        public_base: Base URL of images and masks; the page reads them through ``/files``.
        storage: URLs of other hosts that ``/files`` redirects to, which the page may then read from.
    """
    headers = {
        "Cache-Control": "no-cache",  # revalidated each time, so that all files are of one version after an update
        "Content-Security-Policy": _policy(storage),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    base_known = f'<meta name="s3seg-public-base" content="{html.escape(public_base)}">'.encode()
    page = _content(_PAGE).replace(_BASE_UNKNOWN, base_known)

    @lru_cache(maxsize=_MAX_KEPT)
    def page_at(path: str) -> StaticContent:
        return StaticContent(_linked(page, path), _content_type(_PAGE), headers | {"Vary": "X-Forwarded-Prefix"})

    async def serve_page(request: Request) -> Response:
        return page_at(mount_path(request)).answer(request)

    def serve(name: str) -> Handler:
        content = StaticContent(_content(name), _content_type(name), headers)

        async def serve_file(request: Request) -> Response:
            return content.answer(request)

        return serve_file

    handlers = {"/": (_PAGE, serve_page), **{f"/playground/{name}": (name, serve(name)) for name in _FILES}}
    return routes_of(
        [
            Operation(
                method="GET",
                path=path,
                handler=handler,
                summary=name,
                responses={200: ResponseSpec(description=name, content_type=_content_type(name))},
                secured=False,
            )
            for path, (name, handler) in handlers.items()
        ]
    )


def _linked(page: bytes, path: str) -> bytes:
    """Make the links of the page absolute if its path is known: it may be opened without the slash at its end."""
    if not path:
        return page
    start = html.escape(path).encode()
    page = page.replace(_HOME_UNKNOWN, b'<meta name="s3seg-home" content="' + start + b'/">')
    return _LINK.sub(lambda link: link[1] + b'="' + start + b"/" + link[2], page)


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
