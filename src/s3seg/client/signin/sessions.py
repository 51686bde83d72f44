"""What a sign-in leaves on this machine: a file that only its owner can read, and a secret in the system's keyring.

The secret is what outlives an access token: the refresh token of a Supabase session, or else the token itself. Where
there is no keyring, or it is locked, the secret is in the file too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from pydantic import SecretStr

from s3seg.client._settings import checked_url
from s3seg.client.signin.discovery import Project
from s3seg.errors import ConfigurationError, UnavailableError
from s3seg.tasks.private_files import make_private, make_private_folder, open_private

_log = logging.getLogger(__name__)
_KEYRING_SERVICE = "s3seg"
_LOCK_TIMEOUT_S = 60.0


class Keyring(Protocol):
    """A backend of the package ``keyring``; its methods may raise anything."""

    def get_password(self, service: str, username: str) -> str | None: ...  # noqa: D102 (the package's)
    def set_password(self, service: str, username: str, password: str) -> None: ...  # noqa: D102
    def delete_password(self, service: str, username: str) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """One sign-in. Its secrets do not appear in its repr.

    Attributes:
        service: URL of the service, as `service_of` returns it.
        user_id: Id of the user; empty if the token does not tell.
        name: What people call the user: an email address or a name; may be empty.
        project: The Supabase project; None if the token is from the service's operator.
        access_token: What requests carry.
        refresh_token: What the next access token is made of, once; None without a project.
        renew_at: When to renew the access token, in seconds since 1970 by the clock of this machine; None: never.
        expires_at: When it is refused, likewise.
        kept_in: ``keyring`` or ``file``: where the secret was found.
    """

    service: str
    user_id: str
    name: str = ""
    project: Project | None = None
    access_token: SecretStr
    refresh_token: SecretStr | None = None
    renew_at: float | None = None
    expires_at: float | None = None
    kept_in: str = "file"


def service_of(url: str) -> str:
    """Return the URL of a service in the form that names its sign-in: one service has one.

    Raises:
        ConfigurationError: It is not the URL of a service.
    """
    parts = urlsplit(checked_url(url))
    host = parts.hostname or ""
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}".rstrip("/")


class SessionStore:
    """The sign-ins of this machine's user.

    Args:
        folder: Where the files are; by default in the folder for settings that the system has.
        keyring: The keyring; by default the system's, if there is one.
    """

    def __init__(self, folder: Path | None = None, *, keyring: Keyring | None = None) -> None:
        self._folder = folder or _default_folder()
        self._given_keyring = keyring

    def read(self, service: str) -> StoredSession | None:
        """Return the sign-in of a service; None if there is none.

        Raises:
            ConfigurationError: It is damaged, or its secret cannot be read.
        """
        record = self._record(service)
        if record is None:
            return None
        secret = self._from_keyring(service) if record["kept_in"] == "keyring" else record["secret"]
        try:
            return _session_of(record, SecretStr(secret))
        except (KeyError, TypeError, ValueError):
            raise _damaged(service) from None

    def has(self, service: str) -> bool:
        """Return whether there is a sign-in of a service, which may be damaged."""
        return self._path(service).exists()

    def project_of(self, service: str) -> str | None:
        """Return the address of the project of a kept sign-in; None if there is none, or it is damaged."""
        try:
            project = (self._record(service) or {}).get("project")
        except ConfigurationError:
            return None
        return str(project.get("url")) if isinstance(project, dict) else None

    def write(self, session: StoredSession) -> StoredSession:
        """Keep a sign-in, in place of an earlier one of the same service; it survives a crash once this returns.

        Returns:
            The session, with where it is kept now.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        secret = (session.refresh_token or session.access_token).get_secret_value()
        # the keyring first: should the file not be written, the old one goes on with the new secret
        kept_in = "keyring" if self._to_keyring(session.service, secret) else "file"
        record = _record_of(replace(session, kept_in=kept_in))
        if kept_in == "file":
            record["secret"] = secret
        path = self._path(session.service)
        try:
            self._make_folder()
            _write_synced(path, json.dumps(record, indent=2).encode())
        except OSError as err:
            raise ConfigurationError(f"the sign-in cannot be kept in {path}: {err.strerror}") from err
        return replace(session, kept_in=kept_in)

    def delete(self, service: str) -> bool:
        """Forget the sign-in of a service; return whether there was one."""
        path = self._path(service)
        existed = path.exists()
        keyring = self._keyring()
        if existed and keyring is not None:
            try:
                keyring.delete_password(_KEYRING_SERVICE, service)
            except Exception as err:  # backends raise what their system raises
                _log.debug("nothing was deleted from the keyring: %s", type(err).__name__)
        path.unlink(missing_ok=True)
        return existed

    def services(self) -> list[str]:
        """Return the services that there are sign-ins of, in order."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(str(json.loads(path.read_bytes())["service"]))
            except (OSError, ValueError, KeyError, TypeError):
                _log.warning("%s is damaged; delete it, and sign in again", path)
        return sorted(found)

    @contextmanager
    def locked(self, service: str) -> Iterator[None]:
        """Keep other processes and threads from changing the sign-in of a service.

        Raises:
            UnavailableError: Another process has held the lock for a minute.
            ConfigurationError: The lock cannot be made.
        """
        path = self._path(service).with_suffix(".lock")
        try:
            self._make_folder()
            lock = FileLock(path, timeout=_LOCK_TIMEOUT_S, mode=0o600, thread_local=False)
            lock.acquire()
        except Timeout:
            raise UnavailableError(f"another process has been renewing the sign-in of {service} for a minute") from None
        except OSError as err:
            raise ConfigurationError(f"the sign-in cannot be locked with {path}: {err.strerror}") from err
        try:
            yield
        finally:
            lock.release()

    def _record(self, service: str) -> dict[str, Any] | None:
        path = self._path(service)
        try:
            record = json.loads(path.read_bytes())
            complete = record["service"] == service and record["kept_in"] in ("file", "keyring")
            if not complete or (record["kept_in"] == "file" and not isinstance(record["secret"], str)):
                raise _damaged(service)
        except FileNotFoundError:
            return None
        except OSError as err:
            raise ConfigurationError(f"the sign-in cannot be read from {path}: {err.strerror}") from err
        except (ValueError, KeyError, TypeError):
            raise _damaged(service) from None
        return record

    def _path(self, service: str) -> Path:
        return self._folder / f"{hashlib.sha256(service.encode()).hexdigest()[:32]}.json"

    def _make_folder(self) -> None:
        make_private_folder(self._folder)
        make_private(self._folder)

    def _keyring(self) -> Keyring | None:
        return self._given_keyring or system_keyring()

    def _to_keyring(self, service: str, secret: str) -> bool:
        keyring = self._keyring()
        if keyring is None:
            return False
        try:
            keyring.set_password(_KEYRING_SERVICE, service, secret)
            return keyring.get_password(_KEYRING_SERVICE, service) == secret
        except Exception as err:  # backends raise what their system raises
            _log.debug("the keyring does not keep the sign-in: %s", type(err).__name__)
            return False

    def _from_keyring(self, service: str) -> str:
        keyring, why = self._keyring(), "there is none"
        if keyring is not None:
            try:
                secret, why = keyring.get_password(_KEYRING_SERVICE, service), "it does not have it"
            except Exception as err:  # backends raise what their system raises
                secret, why = None, type(err).__name__
            if secret is not None:
                return secret
        raise ConfigurationError(
            f"the keyring that keeps the sign-in of {service} cannot be read ({why}): unlock it, or sign in again "
            f"with: s3seg login {service}"
        )


def system_keyring() -> Keyring | None:
    """Return the keyring of the system; None if there is none, or only one that does not protect what it keeps."""
    try:
        import keyring
    except ModuleNotFoundError:
        return None
    try:
        backend: Any = keyring.get_keyring()
        protects = backend.priority >= 1
    except Exception as err:  # backends raise what their system raises
        _log.debug("there is no keyring: %s", type(err).__name__)
        return None
    return backend if protects else None


def _default_folder() -> Path:
    from typer import get_app_dir

    return Path(get_app_dir("s3seg")) / "sign-ins"


def _record_of(session: StoredSession) -> dict[str, Any]:
    """Return what the file has of a session: all but the secret."""
    project = session.project
    record: dict[str, Any] = {
        "service": session.service,
        "user_id": session.user_id,
        "name": session.name,
        "kept_in": session.kept_in,
        "expires_at": session.expires_at,
    }
    if project is not None:
        record["project"] = {"url": project.url, "key": project.key, "realtime": project.realtime}
        record["access_token"] = session.access_token.get_secret_value()
        record["renew_at"] = session.renew_at
    return record


def _session_of(record: dict[str, Any], secret: SecretStr) -> StoredSession:
    project = record.get("project")
    return StoredSession(
        service=record["service"],
        user_id=str(record["user_id"]),
        name=str(record["name"]),
        project=None if project is None else Project(**project),
        access_token=secret if project is None else SecretStr(record["access_token"]),
        refresh_token=None if project is None else secret,
        renew_at=None if record.get("renew_at") is None else float(record["renew_at"]),
        expires_at=None if record["expires_at"] is None else float(record["expires_at"]),
        kept_in=record["kept_in"],
    )


def _damaged(service: str) -> ConfigurationError:
    return ConfigurationError(f"the sign-in of {service} is damaged; sign in again with: s3seg login {service}")


def _write_synced(path: Path, body: bytes) -> None:
    """Replace a file in one step; afterwards it survives a power failure."""
    partial = path.with_suffix(".partial")  # one name: callers hold the lock
    partial.unlink(missing_ok=True)
    with open(partial, "xb", opener=open_private) as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    if os.name == "nt":  # Windows cannot open folders, and syncs the name together with the file
        return
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
