"""Running one coroutine on the configured adapters, from a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from s3seg.app import Parts

_T = TypeVar("_T")


def run(work: Callable[[Parts], Awaitable[_T]]) -> _T:
    """Make the adapters, run ``work`` on them, close them; an error of ours ends the command with a line."""
    import asyncio

    from s3seg.app import Parts
    from s3seg.errors import S3segError

    async def with_parts() -> _T:
        parts = Parts()
        try:
            return await work(parts)
        finally:
            await parts.aclose()

    try:
        return asyncio.run(with_parts())
    except S3segError as err:
        typer.echo(f"error: {err}", err=True)
        raise typer.Exit(1) from None
