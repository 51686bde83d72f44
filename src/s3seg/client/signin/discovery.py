"""Ask a service how its users sign in."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from s3seg.api.additions import SignInResponse
from s3seg.api.envelope import ApiResponse
from s3seg.client._settings import checked_url
from s3seg.client._steps import error_of
from s3seg.errors import ConfigurationError, UnavailableError

_TIMEOUT_S = 20.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The Supabase project in which the users of a service sign in. Nothing of it is secret.

    Attributes:
        url: Its address, without a slash at the end.
        key: Its publishable (or legacy anon) key.
        realtime: Whether Realtime tells users when their tasks change.
    """

    url: str
    key: str
    realtime: bool = False


def discover(service: str, *, http: httpx.Client | None = None) -> Project | None:
    """Return the Supabase project of a service; None if the operator of the service hands out tokens.

    Args:
        service: URL of the service, as `checked_url` returns it.
        http: An httpx client to use instead of a new one.

    Raises:
        ConfigurationError: The URL is not that of an s3seg service, or one that does not tell how to sign in.
        UnavailableError: The service cannot be reached.
        S3segError: The service refuses to answer.
    """
    url = f"{service}/api/v1/auth"
    try:
        response = httpx.get(url, timeout=_TIMEOUT_S) if http is None else http.get(url)
    except httpx.TransportError as err:
        raise UnavailableError(f"cannot reach {service}: {str(err) or type(err).__name__}", retry_after=0) from err
    if response.status_code == httpx.codes.NOT_FOUND:
        raise ConfigurationError(
            f"{service} does not tell how to sign in: it is not an s3seg service, or an older one; if you have an "
            f"access token, keep it with: s3seg login --token {service}"
        )
    if not response.is_success:
        raise error_of(response)
    try:
        answer = ApiResponse[SignInResponse].model_validate_json(response.content, extra="ignore").data
    except ValidationError:
        answer = None
    if answer is None:
        raise ConfigurationError(f"the response of {url} is not from an s3seg service; check the URL")
    if answer.kind == "token":
        return None
    if answer.supabase_url is None or answer.supabase_key is None:
        raise ConfigurationError(
            f"{service} does not tell the key of its Supabase project, so nobody can sign in; its operator can set "
            "S3SEG_SUPABASE_PUBLISHABLE_KEY"
        )
    _check_safe(service, answer.supabase_url)
    return Project(url=answer.supabase_url.rstrip("/"), key=answer.supabase_key, realtime=answer.realtime)


def _check_safe(service: str, project: str) -> None:
    """Refuse to send a password over plain HTTP to another machine, unless all of the service is in plain HTTP.

    The user is shown the address before typing a password, so that nothing in it may hide where it leads.
    """
    if not _is_plain(project):
        raise ConfigurationError(
            f"{service} names a Supabase project whose address is not a plain https://host; nothing is sent there"
        )
    parts = urlsplit(project)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and (parts.hostname in _LOOPBACK or urlsplit(service).scheme == "http"):
        return
    raise ConfigurationError(
        f"{service} names a Supabase project whose address does not begin with https://; nothing is sent there"
    )


def _is_plain(url: str) -> bool:
    try:
        return url.isascii() and checked_url(url) == url.rstrip("/")
    except ConfigurationError:
        return False
