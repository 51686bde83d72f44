"""The capacities of an edge, and what it remembers between requests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from s3seg.edge.caching_authenticator import identity_cache
from s3seg.edge.concurrency import UserShares
from s3seg.edge.rate_limits import RateMemory

_LONGEST_EXPORT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """Capacities of one edge process.

    Attributes:
        max_pixels: Largest picture accepted.
        max_uploads: Uploads held in memory at the same time, at most 10 MB each.
        max_uploads_per_user: Uploads of one user at the same time, so that a few slow senders do not block the rest.
        upload_wait_s: Seconds that a further upload waits, its body unread, before it is answered 503. One that arrives
            slowly gives way to it, as `ConcurrencyLimiter` says.
        max_watchers: Requests that may wait for a task to end at the same time.
        max_watchers_per_user: Of these, of one user.
        max_exports: Archives of all that a user has that are sent at the same time, one to a user.
        longest_pause_s: Seconds between two readings of a task that a request waits for, after the first ones.
        presign_s: Seconds that a redirect to a private object is valid.
        cached_tokens: Verified tokens that are remembered, each for up to a minute.
        place_lasts_s: Seconds after which the place of an upload or of a waiting request is free again in any case.
    """

    max_pixels: int = 50_000_000
    max_uploads: int = 32
    max_uploads_per_user: int = 8
    upload_wait_s: float = 2.0
    max_watchers: int = 500
    max_watchers_per_user: int = 50
    max_exports: int = 4
    longest_pause_s: float = 0.5
    presign_s: int = 60
    cached_tokens: int = 10_000
    place_lasts_s: float = math.inf


class EdgeMemory:
    """What an edge remembers between requests: caches and counts. Plain data, with nothing that a request waits for.

    Where each request has an `Edge` of its own, as in a Worker, these share one.

    Args:
        options: Capacities.
    """

    def __init__(self, options: EdgeOptions) -> None:
        lasts_s = options.place_lasts_s
        self.identities = identity_cache(capacity=options.cached_tokens)
        self.rates = RateMemory()
        self.uploads = UserShares(options.max_uploads, per_user=options.max_uploads_per_user, lasts_s=lasts_s)
        self.checked: dict[str, str | None] = {}
        self.checked_until = -math.inf
        self.exports = UserShares(options.max_exports, per_user=1, lasts_s=min(lasts_s, _LONGEST_EXPORT_S))
        self.watchers = UserShares(options.max_watchers, per_user=options.max_watchers_per_user, lasts_s=lasts_s)
