"""Revoked tokens of an installation without Supabase: a file that says since when each user's tokens count."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

from filelock import FileLock, Timeout

from s3seg.errors import UnavailableError
from s3seg.tasks.private_files import make_private_folder, open_private

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT_S = 60.0


class RevokedTokens:
    """When the tokens of users were last revoked, in a JSON file that several processes may share.

    Args:
        path: The file; it does not exist until the first token is revoked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._revoked_at: dict[str, int] = {}

    def revoked_at(self, user_id: str) -> int | None:
        """Return the second, since 1970, up to whose end the user's tokens are revoked; None if none are.

        Raises:
            UnavailableError: The file cannot be read, so that no token can be trusted.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._revoked_at = None, {}
            return None
        except OSError as err:
            raise UnavailableError(f"the list of revoked tokens cannot be read: {err.strerror}") from err
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._revoked_at = self._read()
            self._seen = seen
        return self._revoked_at.get(user_id)

    def revoke(self, user_id: str) -> None:
        """Revoke all tokens that a user has; those issued after this returns are valid.

        Times in tokens are whole seconds, so this waits for the next one.

        Raises:
            UnavailableError: The file cannot be read or written.
        """
        try:
            make_private_folder(self._path.parent)
            with FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S, mode=0o600, thread_local=False):
                now = self._add(user_id)
        except Timeout:
            raise UnavailableError("another process has been revoking tokens for a minute; try again") from None
        except OSError as err:
            raise UnavailableError(f"the list of revoked tokens cannot be written: {err.strerror}") from err
        while int(time.time()) <= now:
            time.sleep(0.05)

    def _add(self, user_id: str) -> int:
        """Write the list with one more revocation, whose second is returned. The caller holds the lock."""
        now = int(time.time())
        revoked_at = self._read() if self._path.exists() else {}
        partial = self._path.with_name(f".{self._path.name}.partial")
        with open(partial, "w", opener=open_private) as file:
            json.dump({**revoked_at, user_id: now}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        return now

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_bytes())
            return {str(user_id): int(second) for user_id, second in found.items()}
        except (OSError, ValueError, TypeError, AttributeError) as err:
            _log.error("%s is damaged: %s; no token is accepted until it is restored", self._path, err)
            raise UnavailableError("the list of revoked tokens is damaged") from err
