"""A stand-in for the parts of Supabase that cannot be had as programs: Auth and Realtime.

Auth answers as its documentation and its source say (version 2024-01-01 of the API): refresh tokens work once; a used
one works again for ten seconds, or as long as the token that replaced it was never used; any other second use ends the
session. Realtime speaks the Phoenix protocol (vsn 1.0.0) as far as Supabase's own Python client uses it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.cloud.parts.tokens import TokenIssuer
from tests.helpers.serving import served

PUBLISHABLE_KEY = "sb_publishable_test"
REUSE_INTERVAL_S = 10


@dataclass
class User:
    """A user of the project."""

    email: str
    password: str
    user_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class RefreshToken:
    """One refresh token of a session."""

    token: str
    session_id: str
    parent: str | None
    used_at: float | None = None
    revoked: bool = False


class FakeAuth:
    """Supabase Auth.

    Attributes:
        lifetime_s: Seconds for which access tokens are valid.
        ahead_s: By how many seconds its clock is ahead.
        mail: Codes that were sent, by email address.
        grants: The grant type of every request for tokens, in order.
        fail: What the next requests for tokens are answered with instead: a status, or a response.
        lose: How many of the next answers to refreshes are lost on the way.
    """

    def __init__(self, issuer: TokenIssuer) -> None:
        self.issuer = issuer
        self.lifetime_s = 3600
        self.ahead_s = 0.0
        self.users: dict[str, User] = {}
        self.mail: dict[str, str] = {}
        self.grants: list[str] = []
        self.fail: list[int | Response] = []
        self.lose = 0
        self.slow_s = 0.0
        self.external = {"email": True, "phone": False, "github": True}
        self._sessions: dict[str, User] = {}
        self._tokens: dict[str, RefreshToken] = {}
        self._flows: dict[str, tuple[User, str]] = {}
        self._guard = threading.Lock()

    def sign_up(self, email: str, password: str = "correct horse") -> User:
        user = self.users[email] = User(email, password)
        return user

    def revoke(self, user: User) -> None:
        """End all sessions of a user, as an administrator can."""
        self._sessions = {key: owner for key, owner in self._sessions.items() if owner is not user}

    def sessions(self, user: User) -> int:
        return sum(owner is user for owner in self._sessions.values())

    def now(self) -> float:
        return time.time() + self.ahead_s

    def routes(self) -> list[Route]:
        return [
            Route("/auth/v1/.well-known/jwks.json", lambda request: JSONResponse(self.issuer.jwks())),
            Route("/auth/v1/token", self._token, methods=["POST"]),
            Route("/auth/v1/otp", self._otp, methods=["POST"]),
            Route("/auth/v1/verify", self._verify, methods=["POST"]),
            Route("/auth/v1/settings", self._settings),
            Route("/auth/v1/authorize", self._authorize),
            Route("/auth/v1/logout", self._logout, methods=["POST"]),
        ]

    async def _token(self, request: Request) -> Response:
        if (refusal := _without_key(request)) is not None:
            return refusal
        grant, body = request.query_params["grant_type"], await request.json()
        self.grants.append(grant)
        if self.fail:
            failure = self.fail.pop(0)
            return Response("upstream trouble", failure) if isinstance(failure, int) else failure
        await asyncio.sleep(self.slow_s)
        with self._guard:
            if grant == "password":
                user = self.users.get(body["email"])
                if user is None or user.password != body["password"]:
                    return refused(400, "invalid_credentials", "Invalid login credentials")
                return JSONResponse(self._new_session(user))
            if grant == "pkce":
                return self._exchange(body["auth_code"], body["code_verifier"])
            answer = self._refresh(body["refresh_token"])
        if self.lose:
            self.lose -= 1
            return Response(status_code=504)  # what a gateway says when the answer does not come
        return answer

    def _refresh(self, text: str) -> Response:
        token = self._tokens.get(text)
        if token is None:
            return refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        user = self._sessions.get(token.session_id)
        if user is None:
            return refused(400, "session_not_found", "Invalid Refresh Token: No Valid Session Found")
        if token.used_at is not None or token.revoked:
            family = [one for one in self._tokens.values() if one.session_id == token.session_id]
            active = next((one for one in family if one.used_at is None and not one.revoked), None)
            if active is not None and active.parent == token.token:
                return JSONResponse(self._answer(user, active))
            if token.revoked or self.now() > (token.used_at or 0) + REUSE_INTERVAL_S:
                for one in family:
                    one.revoked = True
                return refused(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
        token.used_at = self.now()
        return JSONResponse(self._answer(user, self._new_token(token.session_id, token.token)))

    def _exchange(self, code: str, verifier: str) -> Response:
        user, challenge = self._flows.pop(code, (None, ""))
        if user is None:
            return refused(404, "flow_state_not_found", "invalid flow state, no valid flow state found")
        found = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if found != challenge:
            return refused(400, "bad_code_verifier", "code challenge does not match previously saved code verifier")
        return JSONResponse(self._new_session(user))

    async def _otp(self, request: Request) -> Response:
        if (refusal := _without_key(request)) is not None:
            return refusal
        body = await request.json()
        if body["email"] not in self.users:
            assert body["create_user"] is False
            return refused(422, "otp_disabled", "Signups not allowed for otp")
        self.mail[body["email"]] = f"{secrets.randbelow(10**6):06}"
        return JSONResponse({})

    async def _verify(self, request: Request) -> Response:
        if (refusal := _without_key(request)) is not None:
            return refusal
        body = await request.json()
        if body["type"] != "email" or self.mail.get(body["email"]) != body["token"]:
            return refused(403, "otp_expired", "Token has expired or is invalid")
        del self.mail[body["email"]]
        with self._guard:
            return JSONResponse(self._new_session(self.users[body["email"]]))

    async def _settings(self, request: Request) -> Response:
        return _without_key(request) or JSONResponse({"external": self.external, "disable_signup": True})

    async def _authorize(self, request: Request) -> Response:
        """Sign in the first user, as if they had pressed the button at the provider."""
        query = request.query_params
        redirect = urlsplit(query["redirect_to"])
        assert redirect.hostname == "127.0.0.1", "only addresses of loopback are allowed without a setting"
        assert query["code_challenge_method"] == "s256"
        if not self.external.get(query["provider"]):
            return refused(400, "validation_failed", "Unsupported provider: provider is not enabled")
        code = str(uuid.uuid4())
        self._flows[code] = (next(iter(self.users.values())), query["code_challenge"])
        fields = {name: values[0] for name, values in parse_qs(redirect.query).items()} | {"code": code}
        return RedirectResponse(redirect._replace(query=urlencode(fields)).geturl(), 303)

    async def _logout(self, request: Request) -> Response:
        if (refusal := _without_key(request)) is not None:
            return refusal
        claims = self.claims(request.headers["authorization"].removeprefix("Bearer "))
        if claims is None:
            return refused(403, "bad_jwt", "invalid JWT: unable to parse or verify signature")
        assert request.query_params["scope"] == "local"
        self._sessions.pop(claims["session_id"], None)
        return Response(status_code=204)

    def claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a valid access token."""
        try:
            return jwt.decode(token, self.issuer.key.public_key(), algorithms=["ES256"], audience="authenticated")
        except jwt.PyJWTError:
            return None

    def _new_session(self, user: User) -> dict[str, Any]:
        session_id = str(uuid.uuid4())
        self._sessions[session_id] = user
        return self._answer(user, self._new_token(session_id, None))

    def _new_token(self, session_id: str, parent: str | None) -> RefreshToken:
        token = RefreshToken(secrets.token_urlsafe(9), session_id, parent)
        self._tokens[token.token] = token
        return token

    def _answer(self, user: User, token: RefreshToken) -> dict[str, Any]:
        now = int(self.now())
        claims = {"email": user.email, "session_id": token.session_id, "iat": now, "exp": now + self.lifetime_s}
        return {
            "access_token": self.issuer.user_token(user.user_id, jti=str(uuid.uuid4()), **claims),
            "token_type": "bearer",
            "expires_in": self.lifetime_s,
            "expires_at": now + self.lifetime_s,
            "refresh_token": token.token,
            "user": {
                "id": user.user_id,
                "aud": "authenticated",
                "role": "authenticated",
                "email": user.email,
                "app_metadata": {"provider": "email"},
                "user_metadata": {},
                "identities": [],
                "created_at": "2026-01-01T00:00:00Z",
                "is_anonymous": False,
            },
        }


class FakeRealtime:
    """Supabase Realtime with the extension ``postgres_changes``.

    Attributes:
        works: Whether it takes connections.
        confirms: Whether it subscribes to the database after a join, as it says in a message of its own.
        joins: The payload of every join, without tokens.
        tokens: Every access token that it was given.
        may_see: Whether the user with an id may read the row with an id; by default only its owner.
    """

    def __init__(self, claims: Callable[[str], dict[str, Any] | None]) -> None:
        self._claims = claims
        self.works = True
        self.confirms = True
        self.error = ""
        self.joins: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.may_see: Callable[[str, str], bool] | None = None
        self._open: list[tuple[WebSocket, str, dict[str, Any], str]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def routes(self) -> list[WebSocketRoute]:
        return [WebSocketRoute("/realtime/v1/websocket", self._serve)]

    @property
    def subscribers(self) -> int:
        return len(self._open)

    def publish(self, user_id: str, task_id: str, status: str) -> None:
        """Tell of an update of a task those who may see it, if it passes the filter of their subscription."""
        record = {"id": task_id, "user_id": user_id, "status": status}
        self._soon(self._publish(record))

    def drop(self) -> None:
        """Lose all connections."""
        self._soon(self._drop())

    def _soon(self, work: Any) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _publish(self, record: dict[str, Any]) -> None:
        for socket, topic, change, user_id in list(self._open):
            if change.get("filter") != f"user_id=eq.{record['user_id']}":
                continue
            owns = record["user_id"] == user_id
            if not (owns if self.may_see is None else self.may_see(user_id, record["id"])):
                continue
            data = {
                **{"schema": "public", "table": "segmentation_results", "type": "UPDATE", "errors": None},
                **{"commit_timestamp": "2026-01-01T00:00:00Z", "columns": [], "record": record},
                "old_record": {"id": record["id"]},
            }
            payload = {"data": data, "ids": [change["id"]]}
            await socket.send_json({"topic": topic, "event": "postgres_changes", "payload": payload, "ref": None})

    async def _drop(self) -> None:
        for socket, *_ in list(self._open):
            await socket.close(1012)

    async def _serve(self, socket: WebSocket) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.works or socket.query_params.get("apikey") != PUBLISHABLE_KEY:
            await socket.close()
            return
        await socket.accept()
        try:
            while True:
                message = json.loads(await socket.receive_text())
                await self._receive(socket, message)
        except WebSocketDisconnect:
            pass
        finally:
            self._open = [one for one in self._open if one[0] is not socket]

    async def _receive(self, socket: WebSocket, message: dict[str, Any]) -> None:
        topic, event, payload, ref = (message[name] for name in ("topic", "event", "payload", "ref"))

        async def reply(status: str, response: dict[str, Any]) -> None:
            answer = {
                "topic": topic,
                "event": "phx_reply",
                "ref": ref,
                "payload": {"status": status, "response": response},
            }
            await socket.send_json(answer)

        if event == "heartbeat":
            await reply("ok", {})
        elif event == "access_token":
            self.tokens.append(payload["access_token"])
        elif event == "phx_leave":
            await reply("ok", {})
        elif event == "phx_join":
            self.joins.append(payload["config"])
            self.tokens.append(payload["access_token"])
            claims = self._claims(payload["access_token"])
            if claims is None:
                await reply("error", {"reason": "InvalidJWTToken: the token is not valid"})
                return
            (change,) = payload["config"]["postgres_changes"]
            change = {**change, "id": 20_000_001}
            await reply("ok", {"postgres_changes": [change]})
            status, text = ("error", self.error) if self.error else ("ok", "Subscribed to PostgreSQL")
            if self.confirms:
                self._open.append((socket, topic, change, claims["sub"]))
                system = {"channel": topic, "extension": "postgres_changes", "status": status, "message": text}
                await socket.send_json({"topic": topic, "event": "system", "payload": system, "ref": None})


@dataclass
class FakeSupabase:
    """A running project."""

    url: str
    auth: FakeAuth
    realtime: FakeRealtime


@contextlib.contextmanager
def fake_supabase() -> Iterator[FakeSupabase]:
    """Run a project on loopback."""
    issuer = TokenIssuer()
    auth = FakeAuth(issuer)
    realtime = FakeRealtime(auth.claims)
    app = Starlette(routes=[*auth.routes(), *realtime.routes()])
    with served(app, ws="websockets-sansio") as url:
        issuer.issuer = f"{url}/auth/v1"
        yield FakeSupabase(url, auth, realtime)


def _without_key(request: Request) -> Response | None:
    if request.headers.get("apikey") == PUBLISHABLE_KEY:
        return None
    return JSONResponse({"message": "Invalid API key"}, 401)


def refused(status: int, code: str, message: str) -> Response:
    headers = {"X-Supabase-Api-Version": "2024-01-01"}
    return JSONResponse({"code": code, "message": message}, status, headers)
