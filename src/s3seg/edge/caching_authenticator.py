"""Tokens that were verified a moment ago: checking a signature again for every poll would cost more than the poll."""

from __future__ import annotations

import time
from collections.abc import Callable

from s3seg.edge.ttl_cache import TTLCache
from s3seg.tasks.ports import Authenticator
from s3seg.tasks.records import Identity


class CachingAuthenticator:
    """An `Authenticator` that asks another one, and remembers for a while whom it vouched for.

    Refusals are never remembered. A token is forgotten when it expires, and after ``ttl_s`` in any case, which is
    how long a withdrawn key goes on being believed.

    Args:
        authenticator: Who judges tokens.
        ttl_s: Seconds that a verdict is good for.
        capacity: Tokens remembered at most; the least recently used go first.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        ttl_s: float = 60.0,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._ttl_s = ttl_s
        self._clock = clock
        self._known: TTLCache[Identity] = TTLCache(clock, capacity=capacity)

    async def authenticate(self, token: str) -> Identity:
        """See `Authenticator.authenticate`."""
        known = self._known.get(token)
        if known is not None:
            return known
        until = self._clock() + self._ttl_s
        identity = await self._authenticator.authenticate(token)
        if identity.expires_at is not None:
            until = min(until, identity.expires_at.timestamp())
        self._known.put(token, identity, until=until)
        return identity

    async def check(self) -> None:
        """See `Part.check`."""
        await self._authenticator.check()

    async def aclose(self) -> None:
        """See `Part.aclose`."""
        self._known.clear()
        await self._authenticator.aclose()
