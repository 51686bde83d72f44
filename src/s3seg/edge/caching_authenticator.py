"""A cache of verified tokens: checking a signature again takes longer than answering a poll."""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import TLRUCache

from s3seg.tasks.ports import Authenticator
from s3seg.tasks.records import Identity

IdentityCache = TLRUCache[str, Identity]
"""Identities by the tokens that prove them."""


def identity_cache(
    *, ttl_s: float = 60.0, capacity: int = 10_000, clock: Callable[[], float] = time.time
) -> IdentityCache:
    """Return an empty cache. An entry expires with its token, and after ``ttl_s`` at the latest.

    Args:
        ttl_s: Seconds that an identity is cached; a signing key that was withdrawn is trusted for so long.
        capacity: Largest number of cached tokens; the least recently used are evicted first.
        clock: Seconds since 1970.
    """

    def expires_at(token: str, identity: Identity, now: float) -> float:
        if identity.expires_at is None:
            return now + ttl_s
        return min(now + ttl_s, identity.expires_at.timestamp())

    return TLRUCache(capacity, expires_at, timer=clock)


class CachingAuthenticator:
    """An `Authenticator` that asks another one and caches the identities that it returns. Refusals are not cached.

    Args:
        authenticator: Verifies tokens.
        identities: The cache.
    """

    def __init__(self, authenticator: Authenticator, identities: IdentityCache) -> None:
        self._authenticator = authenticator
        self._identities = identities

    async def authenticate(self, token: str) -> Identity:
        """Return the identity that the token proves, from the cache if it was verified recently.

        Raises:
            AuthInvalidError: The token is malformed, expired, for another audience, or not signed by a trusted key.
            ForbiddenError: The token is valid but anonymous, or its role is not ``authenticated``.
        """
        identity = self._identities.get(token)
        if identity is None:
            identity = self._identities[token] = await self._authenticator.authenticate(token)
        return identity

    async def check(self) -> None:
        """Check the authenticator behind the cache; raises `UnavailableError` if it cannot serve."""
        await self._authenticator.check()

    async def aclose(self) -> None:
        """Empty the cache and close the authenticator behind it."""
        self._identities.clear()
        await self._authenticator.aclose()
