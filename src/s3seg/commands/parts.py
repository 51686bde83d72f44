"""Run a coroutine on the adapters that the settings choose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from s3seg.app import Parts

_T = TypeVar("_T")


def run_with_parts(work: Callable[[Parts], Awaitable[_T]]) -> _T:
    """Make the adapters, run ``work`` on them to its end, and close them.

    Raises:
        ConfigurationError: A setting cannot work.
        S3segError: Whatever ``work`` raises.
    """
    import asyncio

    from s3seg.app import Parts

    async def run() -> _T:
        parts = Parts()
        try:
            return await work(parts)
        finally:
            await parts.aclose()

    return asyncio.run(run())
