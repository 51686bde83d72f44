"""How long images and results are kept, and what is removed once their time is over."""

from __future__ import annotations

from dataclasses import dataclass

from s3seg.errors import InvalidRequestError

ACCOUNT_DELETED = "this account was deleted"
"""What whoever uses a deleted account is told."""

KEPT_OF_ACCOUNTS = (
    "the id, the tier and the balance of the account, so that it is not given credits twice",
    "the history of its credits (amounts, times and ids of tasks), which is the record of what was paid for",
)
"""What stays of a deleted account, and why."""

SHORTEST_KEEP_S = 60
"""Shortest time for which a user may ask images and results to be kept, in seconds."""

LONGEST_KEEP_S = 10 * 365 * 86_400
"""Longest such time, in seconds, where the operator sets none."""


def keep_for(asked: int | None, *, retention_s: int | None) -> int | None:
    """Return for how many seconds to keep something, or None to keep it until it is deleted.

    Args:
        asked: Seconds that the user asks for, or None.
        retention_s: Seconds that the operator allows at most, which also apply if the user asks for none; None is no
            limit.

    Raises:
        InvalidRequestError: The user asks for a time that is too short or too long; the message has the limits.
    """
    if asked is None:
        return retention_s
    longest = LONGEST_KEEP_S if retention_s is None else retention_s
    shortest = min(SHORTEST_KEEP_S, longest)
    if not shortest <= asked <= longest:
        raise InvalidRequestError(keep_refused(asked, shortest, longest))
    return asked


def keep_refused(asked: object, shortest: object, longest: object) -> str:
    """Return the message about a time that is not allowed."""
    return f"expires_in_s: must be from {shortest} to {longest} seconds here, got {asked}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a store has removed because its time was over or its account was deleted.

    Attributes:
        images: Number of images.
        results: Number of tasks that had ended.
        object_keys: Keys of their stored objects, which are still to be deleted.
    """

    images: int
    results: int
    object_keys: tuple[str, ...]
