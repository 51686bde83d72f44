"""Runs the work of a job in actors of Ray, and gives its results as a dataset of Ray Data; only this imports ray.

An actor has one task at a time, a shard or a picture, and no task belongs to an actor: when one dies, its task goes to
any other, a few times, and a new actor is asked for. Actors that wait for a place (on a cluster that has lost a
machine, or grows) hold nothing up. Ray Data's own pool of actors was tried in this place. It waits for ever where an
actor that died has no place to start again; see ADR 72.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported: it reports usage to its makers

import ray  # pyright: ignore[reportMissingImports] - not installed where the code is checked
from ray.data import Dataset  # pyright: ignore[reportMissingImports]
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

from s3seg.bulk import results
from s3seg.bulk.plan import choose_pool
from s3seg.bulk.quiet_watch import QuietWatch
from s3seg.bulk.run_folder import Run
from s3seg.bulk.shard_job import AloneReport, ShardJob, ShardReport, ShardWorker
from s3seg.bulk.storage import filesystem
from s3seg.errors import UnavailableError

_ATTEMPTS, _ATTEMPTS_ALONE = 3, 2
_FAILED_STARTS = 5
_ADVICE = "`ray status` shows whether processes wait for processors or GPUs that the cluster does not have"
_OBJECT_STORE_BYTES = 128 * 2**20  # of a run on this machine, which keeps only numbers there


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Where the processes run, and how many.

    Attributes:
        address: Address of a Ray cluster, or "auto" for the one that this machine is part of; None for this machine.
        actors: Most processes; None for as many as the machine or the cluster has room for.
        gpus: GPUs of a process; a fraction shares one. None for 1 where there are GPUs and the device may be one.
        on_warning: Called with a line for the user.
    """

    address: str | None = None
    actors: int | None = None
    gpus: float | None = None
    on_warning: Callable[[str], None] = logging.getLogger(__name__).warning


class RayEngine:
    """An `Engine` on Ray. Ray is started with it, unless the program has started it already."""

    def __init__(self, job: ShardJob, options: EngineOptions) -> None:
        """Start Ray or connect to it, and choose the number of processes.

        Raises:
            InvalidRequestError: The processes that were asked for do not fit.
            UnavailableError: Ray does not start on this machine, or there is no cluster at the address.
        """
        connect(options.address)
        self._on_warning = options.on_warning
        self._pool = choose_pool(
            job.run.request,
            cluster=ray.cluster_resources(),
            asked=options.actors,
            gpus=options.gpus,
            device=job.device,
            can_grow=options.address is not None,
            on_note=options.on_warning,
        )

    def run(self, job: ShardJob, shards: Sequence[int]) -> Iterator[ShardReport]:
        """Do the work on shards; see `Engine`."""
        for _, report in self._each(job, "shard", ((shard,) for shard in shards), attempts=_ATTEMPTS):
            if report is not None:
                yield report

    def run_alone(self, job: ShardJob, pictures: Iterable[tuple[int, str]]) -> Iterator[AloneReport]:
        """Segment each picture alone; see `Engine`."""
        for (number, _), report in self._each(job, "alone", pictures, attempts=_ATTEMPTS_ALONE):
            yield report or AloneReport(number)

    def _each(
        self, job: ShardJob, method: str, tasks: Iterable[tuple[Any, ...]], *, attempts: int
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Call a method of a worker for each task; yield the task and what was returned, None if its actors died."""
        remaining = iter(tasks)
        waiting: deque[tuple[tuple[Any, ...], int]] = deque()  # tasks, and how often their actors have died
        pool = _Actors(job, self._pool.most, cpus=self._pool.cpus, gpus=self._pool.gpus)
        busy: dict[Any, tuple[Any, tuple[Any, ...], int]] = {}
        with QuietWatch(self._on_warning, _ADVICE) as watch, pool:
            while True:
                while len(waiting) < self._pool.most and (task := next(remaining, None)) is not None:
                    waiting.append((task, 0))
                while waiting and pool.free:
                    task, deaths = waiting.popleft()
                    actor = pool.free.pop()
                    busy[getattr(actor, method).remote(*task)] = (actor, task, deaths)
                if not waiting and not busy:
                    return
                pool.ask_for(len(waiting))
                (done,), _ = ray.wait([*busy, *pool.starting])
                watch.touch()
                if done in pool.starting:
                    pool.started(done)
                    continue
                actor, task, deaths = busy.pop(done)
                try:
                    report = ray.get(done)
                except RayError:
                    pool.died(actor)
                    if deaths + 1 < attempts:
                        waiting.append((task, deaths + 1))
                        continue
                    report = None
                else:
                    pool.free.append(actor)
                yield task, report


class _Actors:
    """The actors of a run: those that wait for a place, those that are free, and those that work.

    Attributes:
        starting: Actors that are not ready, by what tells that they are.
        free: Actors that have no task.
    """

    def __init__(self, job: ShardJob, most: int, *, cpus: float, gpus: float) -> None:
        self._kind: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(ShardWorker)
        self._job = job
        self._most = most
        self._all: list[Any] = []
        self._failed_starts = 0
        self.starting: dict[Any, Any] = {}
        self.free: list[Any] = []

    def __enter__(self) -> _Actors:
        return self

    def __exit__(self, *exc: object) -> None:
        for actor in self._all:
            ray.kill(actor)

    def ask_for(self, tasks: int) -> None:
        """Ask for actors, so that as many are starting as there are tasks without one, if there may be so many."""
        while len(self.starting) < tasks and len(self._all) < self._most:
            actor = self._kind.remote(self._job)
            self._all.append(actor)
            self.starting[actor.__ray_ready__.remote()] = actor

    def started(self, ready: Any) -> None:
        """Note that an actor is ready, or could not be started.

        Raises:
            UnavailableError: Several in a row could not.
        """
        actor = self.starting.pop(ready)
        try:
            ray.get(ready)
        except RayError as err:
            self.died(actor)
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise UnavailableError(f"Ray cannot start the processes: {_first_line(err)}") from err
        else:
            self._failed_starts = 0
            self.free.append(actor)

    def died(self, actor: Any) -> None:
        """Forget an actor that has died, or does not answer."""
        self._all.remove(actor)
        ray.kill(actor)


def connect(address: str | None) -> None:
    """Start Ray on this machine, or connect to a cluster. Does nothing if the program has done so.

    Raises:
        UnavailableError: There is no cluster at the address.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else the terminal gets its advice to programmers
            ray.init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        else:
            ray.init(address, **quiet)
    except Exception as err:  # Ray raises Exception itself where a busy machine does not start it within 30 seconds
        where = "on this machine" if address is None else f"at {address}"
        raise UnavailableError(f"Ray does not run {where}: {_first_line(err)}") from err
    logging.getLogger("ray.data").setLevel(
        logging.CRITICAL
    )  # it logs each retry with a traceback; we report what failed


def dataset(run: Run) -> Dataset:
    """Return the results of a run."""
    store, path = filesystem(run.out.path(results.FOLDER), run.out.s3)
    return ray.data.read_parquet(path, filesystem=store)


def _first_line(err: BaseException) -> str:
    return str(err).strip().partition("\n")[0] or type(err).__name__
