"""Values that hold for a while, of which only so many are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class TTLCache(Generic[_T]):
    """Values by name, each until a time of its own.

    Args:
        clock: Seconds; the times of `put` are of the same clock.
        capacity: Values kept at most; the least recently used go first.
    """

    def __init__(self, clock: Callable[[], float], *, capacity: int = 10_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._kept: OrderedDict[str, tuple[float, _T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> _T | None:
        """The value, if there is one whose time is not over."""
        found = self._kept.get(name)
        if found is None:
            return None
        until, value = found
        if self._clock() >= until:
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        return value

    def put(self, name: str, value: _T, *, until: float) -> None:
        """Keep a value until the time is over."""
        self._kept[name] = (until, value)
        self._kept.move_to_end(name)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
