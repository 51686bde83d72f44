"""Checks of the adapters that the settings choose, for ``s3seg doctor --services``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from s3seg.commands.doctor.machine import Finding
from s3seg.errors import ConfigurationError, S3segError, UnavailableError

if TYPE_CHECKING:
    from s3seg.app import Parts
    from s3seg.tasks.ports import Part

EDGE = ("object_store", "task_store", "authenticator")
"""Ports that the edge needs."""

WORKER = ("object_store", "task_queue")
"""Ports that a worker needs."""

OPERATOR = ("accounts",)
"""Ports that ``s3seg admin`` needs as well."""


async def examine_services(parts: Parts, ports: Sequence[str] | None = None, *, probe: bool = True) -> list[Finding]:
    """Connect to each adapter and report what is wrong, with the setting and the remedy. Never raises an `S3segError`.

    Args:
        parts: The adapters that the settings choose.
        ports: The ports to check; by default all that these settings need.
        probe: Also write and delete an object, compare clocks and try keys, if the adapter supports it.

    Returns:
        A finding for each port; "problem" if a service cannot work.
    """
    if ports is None:
        apart = parts.settings.inference != "memory"
        ports = (*EDGE, *WORKER[1:], *OPERATOR, *(("inference",) if apart else ()))
    return [await _examine(parts, port, probe=probe) for port in ports]


async def _examine(parts: Parts, port: str, *, probe: bool) -> Finding:
    settings = parts.settings
    chosen = getattr(settings, port) or settings.task_store
    needed, other = _KEYS.get(port, ("", ""))
    if chosen == "supabase" and needed and getattr(settings, needed) is None and getattr(settings, other):
        value = f"supabase: S3SEG_{needed.upper()} is not set here"
        return Finding(port, "note", value, f"only {_WHO[port]} needs it")
    try:
        part = _MAKERS[port](parts)
        await part.check()
        probing = getattr(part, "probe", None)
        if probe and probing is not None:
            await probing()
    except ConfigurationError as err:
        return Finding(port, "problem", f"{chosen}: a setting is wrong", str(err))
    except UnavailableError as err:
        address = _ADDRESSES.get(chosen)
        advice = "check that it is running and reachable from here" + (
            f"; its address is in {address}" if address else ""
        )
        # tasks wait while the gpu service is down, and it finds them when it starts
        return Finding(port, "note" if port == "inference" else "problem", f"{chosen}: {err}", advice)
    except S3segError as err:
        return Finding(port, "problem", f"{chosen}: {err}")
    return Finding(port, "ok", chosen)


# port -> the key that it needs, and the key that a process that does not use this port has instead
_KEYS = {
    "task_store": ("supabase_publishable_key", "supabase_secret_key"),
    "task_queue": ("supabase_secret_key", "supabase_publishable_key"),
    "accounts": ("supabase_secret_key", "supabase_publishable_key"),
}
_WHO = {"task_store": "the edge", "task_queue": "a gpu service", "accounts": "an operator"}

_ADDRESSES = {
    "supabase": "S3SEG_SUPABASE_URL",
    "r2": "S3SEG_R2_ENDPOINT_URL",
    "http": "S3SEG_GPU_URL",
}

_MAKERS: dict[str, Callable[[Parts], Part]] = {
    "object_store": lambda parts: parts.objects,
    "task_store": lambda parts: parts.task_store,
    "task_queue": lambda parts: parts.task_queue,
    "accounts": lambda parts: parts.accounts,
    "authenticator": lambda parts: parts.authenticator,
    "inference": lambda parts: parts.notifier,
}
