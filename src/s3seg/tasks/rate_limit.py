"""The sliding-window rate limit: never more than N actions in any 60 seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from s3seg.errors import RateLimitedError
from s3seg.tasks.limits import RATE_WINDOW_S, UNLIMITED, Action


@dataclass(frozen=True, slots=True, kw_only=True)
class RateDecision:
    """The decision of a rate limiter about one action.

    Attributes:
        action: The action.
        allowed: Whether it is allowed; if so, it has been counted.
        limit: Number of actions allowed in any 60 seconds.
        remaining: How many more actions are allowed now.
        reset_after: Seconds until the oldest counted action leaves the window.
        retry_after: Seconds until the refused action would be allowed; 0 if it was allowed.
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


def take(action: Action, earlier: Sequence[float], *, limit: int, now: float) -> tuple[RateDecision, tuple[float, ...]]:
    """Decide about one more action from the times of earlier ones, and count it if it is allowed.

    A time later than ``now`` means that the clock was set back, or that the machine was started again. Such an action
    is taken to have happened just now: the limit holds, and nobody waits longer than the window.

    Args:
        action: The action.
        earlier: Times of earlier actions, in seconds, in any order; those that left the window are ignored.
        limit: Number of actions allowed in any 60 seconds.
        now: Time of this action, in seconds of the same clock.

    Returns:
        The decision, and the times to remember: all that are still in the window, newest first. None is remembered
        where the limit is `UNLIMITED`: there would be ever more of them.
    """
    if limit >= UNLIMITED:
        return decide(action, count=0, oldest=None, limit=limit, now=now), ()
    times = sorted((min(moment, now) for moment in earlier if moment > now - RATE_WINDOW_S), reverse=True)[:limit]
    decision = decide(action, count=len(times), oldest=times[-1] if times else None, limit=limit, now=now)
    return decision, (now, *times) if decision.allowed else tuple(times)


def decide(action: Action, *, count: int, oldest: float | None, limit: int, now: float) -> RateDecision:
    """Decide whether one more action is allowed.

    Args:
        action: The action.
        count: Number of actions in the last 60 seconds (later than ``now - 60``), or ``limit`` if there are more.
        oldest: Time of the oldest of the newest ``count`` actions, in seconds; None if ``count`` is 0.
        limit: Number of actions allowed in any 60 seconds.
        now: Time of this action, in seconds of the same clock.

    Returns:
        The decision; ``remaining`` already counts this action if it is allowed.
    """
    # the oldest of the counted actions has to leave the window before another one is allowed
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
