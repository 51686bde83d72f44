"""Access tokens of a sign-in that is kept on this machine, renewed before they expire."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from typing import Any

import httpx
from pydantic import SecretStr

from s3seg.client.signin.discovery import Project
from s3seg.client.signin.sessions import SessionStore, StoredSession, service_of
from s3seg.client.signin.supabase import SupabaseAuth, signed_out
from s3seg.errors import AuthInvalidError, AuthRequiredError, RateLimitedError, S3segError, UnavailableError

_TRY_AGAIN_S = 10.0
_FRESH_S = 30.0


class SignedIn:
    """A sign-in to a service. Threads and processes may share it: a refresh token works once, and is used once.

    Whoever renews holds a lock and first reads what is kept, so that the others take over its result.

    Args:
        url: URL of the service.
        store: Where sign-ins are kept; by default those of this machine's user.
        clock: Returns the seconds since 1970.

    Raises:
        AuthRequiredError: There is no sign-in to this service.
        ConfigurationError: The sign-in is damaged, or its secret cannot be read.
    """

    def __init__(self, url: str, *, store: SessionStore | None = None, clock: Callable[[], float] = time.time) -> None:
        self.service = service_of(url)
        self._store = store or SessionStore()
        self._clock = clock
        self._guard = threading.Lock()
        self._session = self._read()
        self._renewed_at = float("-inf")

    def __repr__(self) -> str:
        return f"SignedIn({self.service!r})"

    @property
    def user_id(self) -> str:
        """Id of the user; empty if the token does not tell."""
        return self._session.user_id

    @property
    def name(self) -> str:
        """Email address or name of the user; may be empty."""
        return self._session.name

    @property
    def project(self) -> Project | None:
        """The Supabase project; None if the token is from the service's operator."""
        return self._session.project

    @property
    def kept_in(self) -> str:
        """``keyring`` or ``file``."""
        return self._session.kept_in

    def access_token(self) -> str:
        """Return a token that is valid for a while, after renewing it if it is about to expire.

        Raises:
            AuthInvalidError: The session has ended; the message says how to sign in again.
            UnavailableError: The project cannot be reached, and the token has expired.
        """
        session = self._session
        if not self._is_due(session):
            return session.access_token.get_secret_value()
        return self._replace(session, refused=False).access_token.get_secret_value()

    def token_after(self, refused: str) -> str | None:
        """Return another token than the one that a service has just refused, or None if there is no other.

        That happens when the clock of this machine is wrong, and when keys were revoked.

        Raises:
            S3segError: As for `access_token`.
        """
        session = self._session
        if session.access_token.get_secret_value() != refused:
            return session.access_token.get_secret_value()
        if self._clock() - self._renewed_at < _FRESH_S:
            return None  # it was refused for another reason than its age
        token = self._replace(session, refused=True).access_token.get_secret_value()
        return None if token == refused else token

    def sign_out(self) -> str:
        """Forget the sign-in on this machine, and end the session at its project.

        Returns:
            Why the session could not be ended at the project; empty if it was, or if there is none.
        """
        problem = ""
        try:
            self.access_token()
            project = self._session.project
            if project is not None:
                SupabaseAuth(self.service, project, self._store.write).sign_out(self._session)
        except (AuthInvalidError, AuthRequiredError):
            pass  # it has ended already
        except S3segError as err:
            problem = str(err)
        with self._guard, self._store.locked(self.service):
            self._store.delete(self.service)
        return problem

    def _is_due(self, session: StoredSession) -> bool:
        return session.renew_at is not None and self._clock() >= session.renew_at

    def _read(self) -> StoredSession:
        session = self._store.read(self.service)
        if session is None:
            raise AuthRequiredError(f"nobody is signed in to {self.service}; sign in with: s3seg login {self.service}")
        return session

    def _replace(self, old: StoredSession, *, refused: bool) -> StoredSession:
        """Return the session that follows ``old``: what another thread or process has renewed, or else a new one."""
        with self._guard, self._store.locked(self.service):
            kept = self._read()
            if kept.user_id != old.user_id:
                raise AuthInvalidError(
                    f"another user has signed in to {self.service} meanwhile; make a new client to go on as that user"
                )
            renewed = kept.access_token != old.access_token and not self._is_due(kept)
            if renewed or kept.project is None:
                self._session = kept
                return kept
            try:
                auth = SupabaseAuth(self.service, kept.project, self._store.write, clock=self._clock)
                self._session = auth.renew(kept)
                self._renewed_at = self._clock()
            except (UnavailableError, RateLimitedError):
                if refused or kept.expires_at is None or self._clock() >= kept.expires_at:
                    raise
                self._session = replace(kept, renew_at=min(kept.expires_at, self._clock() + _TRY_AGAIN_S))
            return self._session


class SignedInAuth(httpx.Auth):
    """Gives requests the access token of a sign-in, and repeats one that was refused once, with another token."""

    def __init__(self, signed_in: SignedIn) -> None:
        self._signed_in = signed_in

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request with a valid token."""
        token = self._signed_in.access_token()
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            other = self._signed_in.token_after(token)
            if other is not None:
                response = yield _with(other, request)
            self._check(response)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send a request with a valid token."""
        token = await asyncio.to_thread(self._signed_in.access_token)
        response = yield _with(token, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            other = await asyncio.to_thread(self._signed_in.token_after, token)
            if other is not None:
                response = yield _with(other, request)
            self._check(response)

    def _check(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise AuthInvalidError(signed_out(self._signed_in.service))


def session_of_token(service: str, token: str) -> StoredSession:
    """Return the session to keep for a token that the operator of a service has handed out.

    Args:
        service: The service, as `service_of` returns it.
        token: The token; what a JWT tells about its user is believed, since only the service can judge it.
    """
    claims = _claims(token)
    user, expires_at = claims.get("user_metadata"), claims.get("exp")
    name = user.get("name") if isinstance(user, dict) else None
    return StoredSession(
        service=service,
        user_id=str(claims.get("sub", "")),
        name=str(claims.get("email") or name or ""),
        access_token=SecretStr(token),
        expires_at=float(expires_at) if isinstance(expires_at, int | float) else None,
    )


def _with(token: str, request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _claims(token: str) -> dict[str, Any]:
    try:
        claims = json.loads(base64.urlsafe_b64decode(f"{token.split('.')[1]}=="))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
