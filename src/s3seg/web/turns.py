"""Requests take turns: the event loop starts a few at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_STARTED_AT_ONCE = 8


class Turns:
    """Starts what is queued, a few in each round of the event loop, and lets the loop's other work go on in between.

    Without it, a round of the loop does a step of every request that has arrived, hundreds where clients send as fast
    as they can, and a request that needs many rounds, such as an upload, waits so long in each of them. With it, a
    request waits once, behind those that came before it.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()

    def take(self, start: Callable[[], object]) -> None:
        """Call ``start`` when it is its turn."""
        self._waiting.append(start)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(min(_STARTED_AT_ONCE, len(self._waiting))):
            loop.call_soon(self._waiting.popleft())  # rather than here: an error of one must not stop the others
        if self._waiting:
            loop.call_soon(self._round)
