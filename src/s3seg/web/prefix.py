"""The path under which a proxy serves the application, such as ``/seg``."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+", re.ASCII)  # never begins with //, which would name a host
_MAX_CHARS = 200
_OWN_PATHS = frozenset({"api", "files", "playground"})


def prefix_of_files(public_base: str) -> str:
    """Return the prefix of a service that serves its objects at ``public_base``: ``/seg`` for ``.../seg/files``."""
    return _valid(urlsplit(public_base).path.rstrip("/").removesuffix("/files"))


class PrefixMiddleware:
    """Adds the prefix that a proxy has removed from the path, as ``root_path``: links in responses then have it.

    The prefix is the header ``X-Forwarded-Prefix`` of the request, which some proxies add, or else ``prefix``. A path
    that still begins with ``prefix`` is accepted too, for proxies that do not remove it.

    Args:
        app: The application inside.
        prefix: The prefix of requests without the header; "" for none. Not used where the application is mounted.
    """

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; only HTTP requests are touched."""
        if scope["type"] == "http":
            scope = self._with_prefix(scope)
        await self._app(scope, receive, send)

    def _with_prefix(self, scope: Scope) -> Scope:
        root_path: str = scope.get("root_path", "")
        forwarded = _valid(Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/"))
        if forwarded:
            if root_path == forwarded or root_path.startswith(f"{forwarded}/"):
                return scope
            return {**scope, "root_path": forwarded + root_path, "path": forwarded + scope["path"]}
        if not self._prefix or root_path:
            return scope
        kept = scope["path"].startswith(f"{self._prefix}/") and self._prefix.split("/")[1] not in _OWN_PATHS
        return {**scope, "root_path": self._prefix, "path": scope["path"] if kept else self._prefix + scope["path"]}


def _valid(prefix: str) -> str:
    is_valid = len(prefix) <= _MAX_CHARS and _PREFIX.fullmatch(prefix) and ".." not in prefix
    return prefix if is_valid else ""
