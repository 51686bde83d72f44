"""How many processes a run gets, and what each of them takes of a machine or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from s3seg.bulk.request import BulkRequest
from s3seg.errors import InvalidRequestError

_CPUS = 1.0  # of a process, which works with one thread
_BASE_BYTES = 10**9  # of a process with the embedded checkpoint


@dataclass(frozen=True, slots=True)
class Pool:
    """The processes of a run.

    Attributes:
        most: Processes that are asked for; those for which there is no room yet wait for it.
        cpus: Processors that each reserves.
        gpus: GPUs that each reserves.
    """

    most: int
    cpus: float
    gpus: float


def choose_pool(
    request: BulkRequest,
    *,
    cluster: Mapping[str, float],
    asked: int | None,
    gpus: float | None,
    device: str,
    can_grow: bool,
    on_note: Callable[[str], None] = lambda note: None,
) -> Pool:
    """Choose the number of processes, and refuse or lower what would wait for ever.

    Args:
        request: Its checkpoint tells the memory of a process.
        cluster: What there is, as Ray reports it: "CPU", "GPU", "memory" in bytes.
        asked: Most processes; None for as many as there is room for.
        gpus: GPUs of a process; None for 1 where there are GPUs and the device may be one, else 0.
        device: As for `Segmenter`.
        can_grow: Whether machines may join, so that there may be room for more processes later.
        on_note: Called with a line for the user if fewer processes are started than were asked for.

    Raises:
        InvalidRequestError: Not one process fits, or the numbers make no sense.
    """
    if asked is not None and asked < 1:
        raise InvalidRequestError(f"the number of processes must be 1 or more, got {asked}")
    if gpus is not None and not (0 <= gpus < 1 or gpus == int(gpus) >= 1):
        raise InvalidRequestError(f"the GPUs of a process are a fraction below 1 or a whole number, got {gpus:g}")
    there = cluster.get("GPU", 0.0)
    each = gpus if gpus is not None else float(there >= 1 and (device == "auto" or device.startswith("cuda")))
    room = int(cluster.get("CPU", 0.0) / _CPUS)
    if each:
        room = min(room, int(there / each + 1e-9))
    if not can_grow and not room:
        lacking, free = (f"{each:g} GPUs", there) if each > there else ("a processor", cluster.get("CPU", 0.0))
        raise InvalidRequestError(f"a process needs {lacking}, and this machine has {free:g} to give")
    if asked is None:
        in_memory = room if each else int(cluster.get("memory", 0.0) / memory_of(request))
        return Pool(max(1, min(room, in_memory)), _CPUS, each)
    if asked > room and not can_grow:
        on_note(f"{asked} processes do not fit: this machine has room for {room}, and more would wait for ever")
        asked = room
    return Pool(asked, _CPUS, each)


def memory_of(request: BulkRequest) -> float:
    """Estimate the memory of a process in bytes: the weights in float32, and what the rest takes."""
    weights = sum(file.stat().st_size for file in request.find_checkpoint().files)
    return _BASE_BYTES + 2.5 * weights
