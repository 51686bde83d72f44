"""API keys: where a request may carry one, and how it is compared."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

from starlette.requests import Request

from s3seg.errors import AuthInvalidError, AuthRequiredError

KEY_HEADER = "X-API-Key"
_SCHEMES = ("bearer", "token")


class ApiKeys:
    """The keys that a service accepts.

    Args:
        keys: The keys; with none, every request is accepted.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._accepted = [key.encode() for key in keys]

    @property
    def needed(self) -> bool:
        """Whether requests need a key."""
        return bool(self._accepted)

    def check(self, request: Request, headers: Sequence[str] = (KEY_HEADER,), *, otherwise: str | None = None) -> None:
        """Check the key of a request.

        Args:
            request: The request.
            headers: Header fields that may carry the key; the first that is there counts. In ``Authorization`` it is
                that of the schemes Bearer and Token, or the password of Basic.
            otherwise: A key that was found elsewhere, as ``api_key``, for requests that have none of these fields.

        Raises:
            AuthRequiredError: There is no key.
            AuthInvalidError: It is not one of those that are accepted.
        """
        if not self._accepted:
            return
        name = next((name for name in headers if request.headers.get(name)), None)
        if name is not None:
            sent = _key_in(name, request.headers[name])
        elif otherwise:
            name, sent = "api_key", otherwise.encode("utf-8", "surrogatepass")
        else:
            raise AuthRequiredError(f"no API key; send it in the header {headers[0]}")
        # every key is compared, so that the time taken does not reveal which one matched
        if not sum(hmac.compare_digest(sent, key) for key in self._accepted):
            raise AuthInvalidError(f"the key in {name} is not valid")


def has_key(request: Request, headers: Sequence[str]) -> bool:
    """Return whether a request has one of these header fields."""
    return any(request.headers.get(name) for name in headers)


def _key_in(name: str, value: str) -> bytes:
    """Return the key in a header field, as the bytes that were sent."""
    raw = value.encode("latin-1")
    if name.lower() != "authorization":
        return raw
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() in _SCHEMES:
        return credentials.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return raw
