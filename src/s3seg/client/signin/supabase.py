"""Sign in to a Supabase project, renew a session and end it, with Supabase's own client of Supabase Auth.

The client keeps sessions in a storage. Ours writes to a `SessionStore`, so that a refresh token, which works once, is
on the disk before anything uses the access token that came with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr

from s3seg.client.signin.discovery import Project
from s3seg.client.signin.sessions import StoredSession
from s3seg.errors import AuthInvalidError, ConfigurationError, RateLimitedError, S3segError, UnavailableError

if TYPE_CHECKING:
    from supabase_auth import SyncGoTrueClient
    from supabase_auth.errors import AuthError

_TIMEOUT_S = 20.0
_RENEW_BEFORE_S = 60.0
_STORAGE_KEY = "session"

_ADVICE = {
    "invalid_credentials": "the email address or the password is wrong",
    "email_not_confirmed": "the email address is not confirmed yet; follow the link in the message that you were sent",
    "otp_expired": "the code is wrong, or has expired; get a new one",
    "otp_disabled": "there is no user with this email address; ask the operator of the service for an account",
    "user_not_found": "there is no user with this email address; ask the operator of the service for an account",
    "user_banned": "this user is banned from the project; ask the operator of the service",
    "email_provider_disabled": "the project has no sign-in by email; use --browser",
    "provider_disabled": "the project has no sign-in with this provider; choose another with --provider",
    "captcha_failed": "the project asks for a CAPTCHA, which a terminal cannot show; use --browser",
    "bad_code_verifier": "the browser's answer belongs to another sign-in; try again",
    "flow_state_expired": "the sign-in in the browser took too long; try again",
}


class SupabaseAuth:
    """Supabase Auth of one project, for the users of one service.

    Args:
        service: The service, as `service_of` returns it.
        project: The project.
        keep: Writes a session to the disk, and returns it as it is kept there.
        clock: Returns the seconds since 1970.

    Raises:
        ConfigurationError: The package ``supabase`` is not installed.
    """

    def __init__(
        self,
        service: str,
        project: Project,
        keep: Callable[[StoredSession], StoredSession],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import supabase_auth  # noqa: F401 (the methods import from it)
        except ModuleNotFoundError as err:
            raise ConfigurationError(
                f"signing in needs the package {err.name}; run: pip install 's3seg[cloud]'"
            ) from err
        self._service = service
        self._project = project
        self._storage = _Storage(service, project, keep, clock)

    def with_password(self, email: str, password: str) -> StoredSession:
        """Sign in with a password.

        Raises:
            AuthInvalidError: The project refuses it; the message says why.
            S3segError: As for all methods, `UnavailableError` if the project cannot be reached.
        """
        with self._client() as client:
            client.sign_in_with_password({"email": email, "password": password})
        return self._storage.kept()

    def send_code(self, email: str) -> None:
        """Let the project send a one-time code to a user's email address.

        Raises:
            AuthInvalidError: There is no such user.
        """
        with self._client() as client:
            client.sign_in_with_otp({"email": email, "options": {"should_create_user": False}})

    def with_code(self, email: str, code: str) -> StoredSession:
        """Sign in with a one-time code.

        Raises:
            AuthInvalidError: The code is wrong, or has expired.
        """
        with self._client() as client:
            client.verify_otp({"email": email, "token": code, "type": "email"})
        return self._storage.kept()

    def providers(self) -> list[str]:
        """Return what users can sign in with in a browser, such as ``github``."""
        with self._client() as client:
            settings = client._request("GET", "settings").json()
        external = settings.get("external") if isinstance(settings, dict) else None
        found = external if isinstance(external, dict) else {}
        return sorted(
            name for name, on in found.items() if on is True and name not in ("email", "phone", "anonymous_users")
        )

    def start_in_browser(self, provider: str, redirect: str) -> str:
        """Return the address to open in a browser; its answer to ``redirect`` works only with this object."""
        with self._client(flow="pkce") as client:
            options: Any = {"provider": provider, "options": {"redirect_to": redirect}}
            return client.sign_in_with_oauth(options).url

    def finish_in_browser(self, code: str) -> StoredSession:
        """Sign in with the code that the browser brought.

        Raises:
            AuthInvalidError: The code is not the answer to `start_in_browser`, or has expired.
        """
        with self._client(flow="pkce") as client:
            exchange: Any = {"auth_code": code}
            client.exchange_code_for_session(exchange)
        return self._storage.kept()

    def renew(self, session: StoredSession) -> StoredSession:
        """Use up the refresh token of a session for a new session, and keep that one.

        Raises:
            AuthInvalidError: The session has ended: it was revoked, or is too old.
            UnavailableError: The project cannot be reached; the session is as it was.
        """
        assert session.refresh_token is not None  # noqa: S101 (sessions with a project have one)
        with self._client(renewing=True) as client:
            client.refresh_session(session.refresh_token.get_secret_value())
        return self._storage.kept()

    def sign_out(self, session: StoredSession) -> None:
        """End a session at the project; its access token works until it expires."""
        with self._client() as client:
            client.admin.sign_out(session.access_token.get_secret_value(), "local")

    @contextmanager
    def _client(self, flow: Any = "implicit", *, renewing: bool = False) -> Iterator[SyncGoTrueClient]:
        from supabase_auth import SyncGoTrueClient
        from supabase_auth.errors import AuthError

        with httpx.Client(timeout=_TIMEOUT_S) as http:
            client = SyncGoTrueClient(
                url=f"{self._project.url}/auth/v1",
                headers={"apikey": self._project.key},
                storage=self._storage,  # type: ignore[arg-type] (it has the methods)
                storage_key=_STORAGE_KEY,
                auto_refresh_token=False,
                flow_type=flow,
                http_client=http,
            )
            try:
                yield client
            except AuthError as err:
                raise self._translated(err, renewing=renewing) from None  # the original may quote the request
            except ValueError as err:  # pydantic's too, which quotes the response
                if isinstance(err, S3segError):
                    raise
                raise UnavailableError(f"the answer of {self._project.url} is not that of Supabase Auth") from None

    def _translated(self, err: AuthError, *, renewing: bool) -> S3segError:
        status, code = getattr(err, "status", 0), err.code
        if err.name == "AuthRetryableError":
            return UnavailableError(f"cannot reach Supabase Auth at {self._project.url}: {err.message[:200]}")
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return RateLimitedError(
                f"{self._project.url} has had too many requests; wait a minute",
                limit=0,
                retry_after=60,
            )
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or not status:
            return UnavailableError(f"Supabase Auth at {self._project.url} failed: {type(err).__name__} {status or ''}")
        if renewing:
            return AuthInvalidError(signed_out(self._service))
        if code in _ADVICE:
            return AuthInvalidError(_ADVICE[code])
        return AuthInvalidError(f"Supabase Auth at {self._project.url} refused: {err.message[:200]}")


def signed_out(service: str) -> str:
    """Return what to tell a user whose session has ended."""
    return (
        f"your sign-in to {service} has ended: it was revoked or has expired; sign in again with: s3seg login {service}"
    )


class _Storage:
    """The storage of the client: sessions go to the disk, the verifier of a sign-in in a browser stays in memory."""

    def __init__(
        self,
        service: str,
        project: Project,
        keep: Callable[[StoredSession], StoredSession],
        clock: Callable[[], float],
    ) -> None:
        self._service = service
        self._project = project
        self._keep = keep
        self._clock = clock
        self._kept: StoredSession | None = None
        self._others: dict[str, str] = {}

    def kept(self) -> StoredSession:
        """Return the session that was kept last.

        Raises:
            AuthInvalidError: The project answered without a session.
        """
        if self._kept is None:
            raise AuthInvalidError(f"Supabase Auth at {self._project.url} answered without a session; sign in again")
        return self._kept

    def get_item(self, key: str) -> str | None:
        return self._others.get(key)

    def set_item(self, key: str, value: str) -> None:
        if key == _STORAGE_KEY:
            self._kept = self._keep(self._session_of(json.loads(value)))
        else:
            self._others[key] = value

    def remove_item(self, key: str) -> None:
        self._others.pop(key, None)

    def _session_of(self, session: dict[str, Any]) -> StoredSession:
        user = session["user"]
        lifetime = float(session["expires_in"])
        now = self._clock()  # not the server's expires_at: the clocks may differ
        return StoredSession(
            service=self._service,
            user_id=user["id"],
            name=user.get("email") or user.get("phone") or "",
            project=self._project,
            access_token=SecretStr(session["access_token"]),
            refresh_token=SecretStr(session["refresh_token"]),
            renew_at=now + lifetime - min(_RENEW_BEFORE_S, lifetime / 4),
            expires_at=now + lifetime,
        )
