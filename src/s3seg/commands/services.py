"""Asking each part that the settings choose whether it works; what ``s3seg doctor --services`` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from s3seg.commands.examine import Finding
from s3seg.errors import ConfigurationError, S3segError, UnavailableError

if TYPE_CHECKING:
    from s3seg.app import Parts
    from s3seg.tasks.ports import Part

EDGE = ("object_store", "task_store", "authenticator")
"""Ports whose parts the edge stands on."""

WORKER = ("object_store", "task_queue")
"""Ports whose parts a worker stands on."""

OPERATOR = ("accounts",)
"""Ports that operators' commands need besides."""


async def examine_services(parts: Parts, ports: Sequence[str] | None = None, *, probe: bool = True) -> list[Finding]:
    """Connect to each part and say what is wrong with it, with the setting and the remedy; never raises.

    Args:
        parts: The adapters that the settings choose.
        ports: Which of them; if not given, all that these settings need.
        probe: Also write and remove an object, compare clocks and try keys, where a part can do so.

    Returns:
        A finding for each port; "problem" where a service cannot work.
    """
    if ports is None:
        apart = parts.settings.inference != "memory"
        ports = (*EDGE, *WORKER[1:], *OPERATOR, *(("inference",) if apart else ()))
    return [await _examine(parts, port, probe=probe) for port in ports]


async def _examine(parts: Parts, port: str, *, probe: bool) -> Finding:
    settings = parts.settings
    chosen = getattr(settings, port) or settings.task_store
    lacking, elsewhere = _KEYS.get(port, ("", ""))
    if chosen == "supabase" and lacking and getattr(settings, lacking) is None and getattr(settings, elsewhere):
        value = f"supabase: S3SEG_{lacking.upper()} is not set here"
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
        advice = "see that it runs and can be reached from here" + (f"; {address} says where it is" if address else "")
        # tasks wait for a gpu service that is away, and it finds them by itself
        return Finding(port, "note" if port == "inference" else "problem", f"{chosen}: {err}", advice)
    except S3segError as err:
        return Finding(port, "problem", f"{chosen}: {err}")
    return Finding(port, "ok", chosen)


# the key that a port needs, and the one that a process of the other kind has instead
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
