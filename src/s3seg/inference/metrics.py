"""The measurements that the inference side of a service reports."""

from __future__ import annotations

from typing import Protocol


class InferenceMetrics(Protocol):
    """Receives measurements. Methods are called from any thread and must not block."""

    def stage(self, name: str, seconds: float) -> None:
        """Record the time that a stage of one prediction took.

        Stages: ``fetch``; ``segment``, and within it ``read``, ``wait`` (for the network), ``image``, ``prompt``,
        ``masks``; ``outcome``, ``store``, ``finish``.
        """
        ...

    def batch(self, *, pictures: int, prompts: int) -> None:
        """Record a batch: the pictures encoded in one pass, and the prompts decoded after it."""
        ...

    def split(self) -> None:
        """Record that a batch failed and is tried again in parts."""
        ...

    def cache(self, *, hit: bool) -> None:
        """Record a look-up of a picture's embedding in the cache."""
        ...

    def ended(self, code: str) -> None:
        """Record the end of an attempt: ``DONE``, ``RETRY``, ``LEASE_LOST``, ``RELEASED``, or an error code."""
        ...


class NoMetrics:
    """Discards all measurements."""

    def stage(self, name: str, seconds: float) -> None:
        """Do nothing."""

    def batch(self, *, pictures: int, prompts: int) -> None:
        """Do nothing."""

    def split(self) -> None:
        """Do nothing."""

    def cache(self, *, hit: bool) -> None:
        """Do nothing."""

    def ended(self, code: str) -> None:
        """Do nothing."""
