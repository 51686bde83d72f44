"""The client with which a command talks to a service."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3seg.client import Client


def connect(url: str, token: str | None) -> Client:
    """Return a client with a token, or else ``S3SEG_TOKEN``, or else the sign-in that ``s3seg login`` has kept.

    Raises:
        ConfigurationError: There is none of them, or the URL is not valid.
    """
    from s3seg.client import Client
    from s3seg.client.signin import SessionStore
    from s3seg.client.signin.sessions import service_of

    if token or os.environ.get("S3SEG_TOKEN") or not SessionStore().has(service_of(url)):
        return Client(url, token)
    return Client.signed_in(url)
