"""Rate limits of the public API: one decision per request, by the caller's tier."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace

from cachetools import TLRUCache, TTLCache

from s3seg.errors import UnavailableError
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.ports import RateLimiter, TaskStore
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import Identity

_TIER_TTL_S = 30.0
_MAX_USERS_CACHED = 10_000


@dataclass(slots=True)
class RateMemory:
    """What `RateLimits` remembers between requests.

    Attributes:
        tiers: Tiers of accounts, by user.
        blocked: Until when a user's submits are refused, and the decision that said so.
    """

    tiers: TTLCache[str, Tier] = field(
        default_factory=lambda: TTLCache(_MAX_USERS_CACHED, _TIER_TTL_S, timer=time.monotonic)
    )
    blocked: TLRUCache[str, tuple[float, RateDecision]] = field(
        default_factory=lambda: TLRUCache(
            _MAX_USERS_CACHED, lambda user_id, blocked, now: blocked[0], timer=time.monotonic
        )
    )


class RateLimits:
    """Counts requests against the limits of the caller's tier, which is cached for half a minute.

    Submits are special: the task store counts the accepted ones in the transaction that debits them. This class
    counts the ones that the store refused, so that a client cannot repeat a bad request without end.

    Args:
        limiter: Counts actions.
        tasks: Knows the tier of an account.
        memory: What is remembered between requests.
    """

    def __init__(self, limiter: RateLimiter, tasks: TaskStore, memory: RateMemory) -> None:
        self._limiter = limiter
        self._tasks = tasks
        self._memory = memory

    async def count(self, caller: Identity, action: Action) -> RateDecision | None:
        """Count one request of the caller.

        Returns:
            The state of the limit after this request, or None if the limiter does not answer: requests that cost
            little are then served without being counted.

        Raises:
            RateLimitedError: The limit is reached.
            UnavailableError: The limiter does not answer, and the action is an upload.
        """
        try:
            decision = await self._limiter.take(caller, action, await self._tier(caller))
        except UnavailableError:
            if action is Action.UPLOAD:
                raise
            return None
        decision.require()
        return decision

    def require_may_submit(self, caller: Identity) -> None:
        """Raise `RateLimitedError` while the caller has too many refused submits in the window.

        A repeat of an accepted submit is answered nevertheless; see `Edge.submit`.
        """
        blocked = self._memory.blocked.get(caller.user_id)
        if blocked is not None:
            until, decision = blocked
            replace(decision, retry_after=until - time.monotonic()).require()

    async def count_refused_submit(self, caller: Identity) -> None:
        """Count a submit that the task store refused; past the limit, block further ones until the window moves on."""
        with contextlib.suppress(UnavailableError):
            decision = await self._limiter.take(caller, Action.SEGMENT, await self._tier(caller))
            if not decision.allowed:
                self._memory.blocked[caller.user_id] = (time.monotonic() + decision.retry_after, decision)

    def forget(self, caller: Identity) -> None:
        """Forget what is cached about the caller's account."""
        self._memory.tiers.pop(caller.user_id, None)

    async def _tier(self, caller: Identity) -> Tier:
        tier = self._memory.tiers.get(caller.user_id)
        if tier is None:
            tier = self._memory.tiers[caller.user_id] = (await self._tasks.account(caller)).tier
        return tier
