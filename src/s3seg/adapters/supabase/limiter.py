"""The rate limiter on Supabase; every call carries the user's own token."""

from __future__ import annotations

from s3seg.adapters.supabase.errors import rate_decision
from s3seg.adapters.supabase.rest import Rest, check_schema
from s3seg.tasks.limits import Action, Tier
from s3seg.tasks.rate_limit import RateDecision
from s3seg.tasks.records import Identity


class SupabaseRateLimiter:
    """A `RateLimiter` in a Supabase project, for all edges together. Tiers and limits are those of the database.

    Args:
        rest: The PostgREST API, with the publishable key.
        public_base: Base URL of stored objects; `check` compares it with the one in the database.
    """

    def __init__(self, rest: Rest, *, public_base: str) -> None:
        self._rest = rest
        self._public_base = public_base

    async def take(self, caller: Identity, action: Action, tier: Tier) -> RateDecision:
        """Decide whether the caller may do one more action, and count it if so."""
        counted = await self._rest.call(self._rest.as_user(caller.token), "count_request", {"p_action": action.value})
        return rate_decision(counted, action)

    async def check(self) -> None:
        """Check that the database responds, and has the schema of s3seg."""
        await check_schema(self._rest, public_base=self._public_base)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rest.aclose()
