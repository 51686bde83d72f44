"""What the clients of a server can take, and which connections give way when there are too many."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

_PAUSE_S = 0.05  # after no connection could give way, until one is looked for again


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What the clients of a server can take.

    Attributes:
        connections: Open at the same time. Beyond it, the connection that has waited longest for its client is closed;
            if none waits for its client, the new one is answered 503.
        head_bytes: Of the request line and all header fields; also of a chunk's extension, or of a trailer.
        target_bytes: Of the request target, the part of the URL after the host.
        fields: Header fields of a request.
        field_bytes: Name and value of one of them; a token of 8,192 characters fits.
        head_s: Seconds for the first request of a connection to begin, and for a head to arrive.
        idle_s: Seconds until an unused connection is closed.
        grace_s: Seconds until the speed of a client is checked, both sending and receiving.
        bytes_per_s: Lowest speed of sending after that, on average.
        read_bytes_per_s: Lowest speed of reading answers, likewise.
        body_s: Seconds for a body to arrive, however fast its client is.
        linger_s: Seconds that a client which is still sending has to read a refusal.
    """

    connections: int = 1000
    head_bytes: int = 64 * 1024
    target_bytes: int = 8 * 1024
    fields: int = 100
    field_bytes: int = 9 * 1024
    head_s: float = 10.0
    idle_s: int = 5
    grace_s: float = 20.0
    bytes_per_s: float = 32 * 1024
    read_bytes_per_s: float = 4 * 1024
    body_s: float = 400.0
    linger_s: float = 2.0


class Connection(Protocol):
    """What `Admission` asks of a connection."""

    @property
    def waits_for_client(self) -> bool:
        """Whether the client is to act next."""
        ...

    @property
    def active_at(self) -> float:
        """When the client was last active, by the clock of the event loop."""
        ...

    def give_way(self) -> None:
        """Close the connection at once."""
        ...


class Admission:
    """Decides which connections of a server stay when there are too many.

    Args:
        limits: What clients can take.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._none_until = 0.0

    def has_room(self, others: Iterable[Connection], *, count: int, now: float) -> bool:
        """Whether a new connection can stay; those that have waited longest for their clients give way to it.

        Args:
            others: The connections before it; read only if there are too many.
            count: How many connections there are with it.
            now: The time of the event loop.
        """
        limit = self._limits.connections
        if count <= limit:
            return True
        if now < self._none_until:
            return False
        waiting = [one for one in others if one.waits_for_client]
        # several at a time, as finding them takes a millisecond where there are a thousand
        for one in heapq.nsmallest(max(1, limit // 32), waiting, key=lambda one: one.active_at):
            one.give_way()
        if not waiting:
            self._none_until = now + _PAUSE_S
        return bool(waiting)
