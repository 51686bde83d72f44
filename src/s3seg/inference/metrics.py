"""What the inference side tells whoever measures it."""

from __future__ import annotations

from typing import Protocol


class InferenceMetrics(Protocol):
    """Takes measurements. Methods are called from any thread, and must return at once."""

    def stage(self, name: str, seconds: float) -> None:
        """One stage of one prediction took so long.

        Stages: ``fetch``; ``segment``, and within it ``read``, ``wait`` (for the network), ``image``, ``prompt``,
        ``masks``; ``outcome``, ``store``, ``finish``.
        """
        ...

    def batch(self, *, pictures: int, prompts: int) -> None:
        """The network was asked for so many prompts in one go, after encoding so many pictures in one pass."""
        ...

    def split(self) -> None:
        """A batch failed and was tried again in parts."""
        ...

    def cache(self, *, hit: bool) -> None:
        """A picture's embedding was known already, or was not."""
        ...

    def ended(self, code: str) -> None:
        """An attempt ended: ``DONE``, ``RETRY``, ``LEASE_LOST``, ``RELEASED``, or the code of its error."""
        ...


class NoMetrics:
    """A `InferenceMetrics` that nobody reads."""

    def stage(self, name: str, seconds: float) -> None:
        """See `InferenceMetrics.stage`."""

    def batch(self, *, pictures: int, prompts: int) -> None:
        """See `InferenceMetrics.batch`."""

    def split(self) -> None:
        """See `InferenceMetrics.split`."""

    def cache(self, *, hit: bool) -> None:
        """See `InferenceMetrics.cache`."""

    def ended(self, code: str) -> None:
        """See `InferenceMetrics.ended`."""
