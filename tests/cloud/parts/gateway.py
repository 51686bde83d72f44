"""A stand-in for Supabase's gateway: it replaces API keys by role tokens, serves the JWKS, and forwards the rest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.cloud.parts.tokens import TokenIssuer
from tests.helpers.serving import served

PUBLISHABLE_KEY, SECRET_KEY = "sb_publishable_test", "sb_secret_test"
_ROLES = {PUBLISHABLE_KEY: "anon", SECRET_KEY: "service_role"}
_NOT_FORWARDED = {"host", "connection", "transfer-encoding", "apikey", "content-length", "accept-encoding"}
_NOT_RETURNED = {"connection", "transfer-encoding", "content-length", "content-encoding"}


@dataclass
class Gateway:
    """The URL of the gateway, and the requests that it received.

    Attributes:
        url: The URL of the project.
        seen: Method, path and headers of every request.
    """

    url: str = ""
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextlib.contextmanager
def gateway(postgrest_url: str, issuer: TokenIssuer, routes: Sequence[BaseRoute] = ()) -> Iterator[Gateway]:
    """Run the gateway in a thread, with the routes of other parts of Supabase."""
    state = Gateway()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=postgrest_url, timeout=30) as app.state.upstream:
            yield

    async def rest(request: Request) -> Response:
        key = request.headers.get("apikey", "")
        state.seen.append((request.method, request.url.path, dict(request.headers)))
        if key not in _ROLES:
            return JSONResponse({"message": "Invalid API key"}, 401)
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_FORWARDED}
        if headers.get("authorization") in (None, f"Bearer {key}"):
            headers["authorization"] = f"Bearer {issuer.role_token(_ROLES[key])}"
        query = f"?{request.url.query}" if request.url.query else ""
        target = f"/{request.path_params['path']}{query}"
        try:
            answer = await request.app.state.upstream.request(
                request.method, target, headers=headers, content=await request.body()
            )
        except httpx.TransportError:
            return JSONResponse({"message": "name resolution failed"}, 503)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_RETURNED}
        return Response(answer.content, answer.status_code, kept)

    async def jwks(request: Request) -> Response:
        return JSONResponse(issuer.jwks())

    app = Starlette(
        routes=[
            Route("/rest/v1/{path:path}", rest, methods=["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"]),
            Route("/auth/v1/.well-known/jwks.json", jwks),
            *routes,
        ],
        lifespan=lifespan,
    )
    with served(app, ws="websockets-sansio") as state.url:
        issuer.issuer = f"{state.url}/auth/v1"
        yield state
