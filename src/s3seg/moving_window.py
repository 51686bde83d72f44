"""The moving window: never more than N actions in any 60 seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3seg.contract.limits import RATE_WINDOW_S, Action
from s3seg.errors import RateLimitedError


@dataclass(frozen=True, slots=True, kw_only=True)
class RateDecision:
    """What a limiter says about one action.

    Attributes:
        action: What was counted.
        allowed: Whether it may go ahead; if so, it has been counted.
        limit: Actions allowed in any 60 seconds.
        remaining: How many more would be allowed now.
        reset_after: Seconds until the oldest counted action leaves the window.
        retry_after: Seconds until one more is allowed; 0 if one is allowed now.
    """

    action: Action
    allowed: bool
    limit: int
    remaining: int
    reset_after: float
    retry_after: float

    def require(self) -> None:
        """Raise `RateLimitedError` if the action is not allowed."""
        if not self.allowed:
            raise RateLimitedError(
                f"the limit of {self.limit} {self.action} requests per minute is reached; "
                f"retry in {self.retry_after:.0f} seconds",
                limit=self.limit,
                retry_after=self.retry_after,
            )


def decide(action: Action, times: Sequence[float], *, limit: int, now: float) -> RateDecision:
    """Judge one more action.

    Args:
        action: What is counted.
        times: When the counted actions of the last 60 seconds happened, newest first; those beyond the first
            ``limit`` do not matter.
        limit: Actions allowed in any 60 seconds.
        now: The time of this one, in the same seconds.

    Returns:
        A decision that counts this action if it is allowed.
    """
    inside = [time for time in times[:limit] if time > now - RATE_WINDOW_S]
    if len(inside) >= limit:
        # the action that must leave before another may enter: the limit-th newest
        wait = max(inside[-1] + RATE_WINDOW_S - now, 0.0) if inside else float(RATE_WINDOW_S)
        return RateDecision(
            action=action, allowed=False, limit=limit, remaining=0, reset_after=wait, retry_after=wait
        )
    oldest = inside[-1] if inside else now
    return RateDecision(
        action=action,
        allowed=True,
        limit=limit,
        remaining=limit - len(inside) - 1,
        reset_after=oldest + RATE_WINDOW_S - now,
        retry_after=0.0,
    )
