"""The moving window: never more than N actions in any 60 seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from s3seg.errors import RateLimitedError
from s3seg.tasks.limits import RATE_WINDOW_S, Action


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
                f"retry in {math.ceil(self.retry_after)} seconds",
                limit=self.limit,
                retry_after=self.retry_after,
                action=self.action,
            )


def decide(action: Action, *, count: int, oldest: float | None, limit: int, now: float) -> RateDecision:
    """Judge one more action.

    Args:
        action: What is counted.
        count: Actions counted in the last 60 seconds (later than ``now - 60``), or ``limit`` if more.
        oldest: When the oldest of these ``count`` newest happened; None if there are none.
        limit: Actions allowed in any 60 seconds.
        now: The time of this one, in the same seconds.

    Returns:
        A decision that counts this action if it is allowed.
    """
    # the oldest of them is the one that must leave before another may enter
    reset_after = RATE_WINDOW_S - (0.0 if oldest is None else now - oldest)
    allowed = count < limit
    return RateDecision(
        action=action,
        allowed=allowed,
        limit=limit,
        remaining=limit - count - 1 if allowed else 0,
        reset_after=reset_after,
        retry_after=0.0 if allowed else reset_after,
    )
