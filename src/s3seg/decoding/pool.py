"""`DecodingPool`: a few decoding processes, shared by the users of a service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from cachetools import TTLCache

from s3seg.decoding.process import DecodingProcess
from s3seg.errors import UnavailableError

_SLOW_FOR_S = 600.0
_MAX_SLOW_USERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """Limits of a `DecodingPool`.

    Attributes:
        processes: Pictures decoded at the same time. One user has one at a time, so that slow pictures of fewer users
            than this delay nobody else.
        deadline_s: Seconds of processor time that a picture may take before its process is killed, and the picture is
            refused.
        give_up_s: Seconds by the clock after which a picture that has not had as much processor time, because the
            machine is busy, ends with `UnavailableError`.
        wait_s: Seconds that a picture waits for a free process before `UnavailableError`; None waits without limit.
        memory: Bytes of memory that one picture may take.
        slow_s: Seconds by the clock; a user whose picture took as long is slow for the next ten minutes, and leaves one
            process to the others.
    """

    processes: int = 4
    deadline_s: float = 20.0
    give_up_s: float = 60.0
    wait_s: float | None = 1.0
    memory: int = 2 * 10**9
    slow_s: float = 5.0


class DecodingPool:
    """Runs a function on untrusted pictures in processes that are killed at a deadline.

    Use it on one event loop. Processes are started when they are first needed. They are replaced when they have been
    killed, have kept memory, or have decoded a thousand pictures.

    Args:
        function: ``"module:name"`` of a function ``(content: bytes, *, name: str, **arguments) -> (dict, bytes)``,
            whose arguments and first result are JSON. Its module is imported when a process starts.
        options: Limits.
    """

    def __init__(self, function: str, options: DecodingOptions | None = None) -> None:
        self.options = options = options or DecodingOptions()
        self._function = function
        self._places = asyncio.Semaphore(options.processes)
        self._places_of_slow = asyncio.Semaphore(max(1, options.processes - 1))
        self._slow: TTLCache[str, None] = TTLCache(_MAX_SLOW_USERS, _SLOW_FOR_S, timer=time.monotonic)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._threads = ThreadPoolExecutor(options.processes, thread_name_prefix="s3seg-decoding")
        self._idle = [self._new_process() for _ in range(options.processes)]
        self._all = list(self._idle)
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that have been started."""
        return [process.pid for process in self._all if process.pid is not None]

    @property
    def busy(self) -> int:
        """The number of pictures that are being decoded."""
        return len(self._all) - len(self._idle)

    def start(self) -> None:
        """Start one process in the background, so that the first picture does not wait for it."""
        self._threads.submit(self._idle[-1].start)

    async def run(self, content: bytes, *, user_id: str, name: str, **arguments: Any) -> tuple[dict[str, Any], bytes]:
        """Run the function on a picture, and return what it returns.

        A further picture of the same user waits until the one before it has ended. If the caller is cancelled, the
        process is killed.

        Args:
            content: The bytes of a picture file.
            user_id: Whose picture it is.
            name: What error messages call the picture.
            arguments: Passed to the function.

        Raises:
            ImageDecodeError: The picture cannot be read, or takes too long or too much memory.
            FileTooLargeError: The function raised it.
            UnavailableError: No process became free in time, or it was killed by someone else, or the machine is too
                busy.
        """
        async with self._turn(user_id), self._place(user_id), self._timed(user_id):
            if self._closed:
                raise UnavailableError("the service is stopping")
            process = self._idle.pop()
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._threads, lambda: process.decode(content, name=name, **arguments)
                )
            except asyncio.CancelledError:
                process.kill()
                self._all.remove(process)
                process = self._new_process()
                self._all.append(process)
                raise
            finally:
                self._idle.append(process)

    async def aclose(self) -> None:
        """Kill all processes. Pictures that are being decoded end with `UnavailableError`."""
        self._closed = True
        for process in self._all:
            process.kill()
        await asyncio.to_thread(self._threads.shutdown)
        for process in self._all:
            process.end()

    def _new_process(self) -> DecodingProcess:
        options = self.options
        return DecodingProcess(
            self._function, memory=options.memory, deadline_s=options.deadline_s, give_up_s=options.give_up_s
        )

    @contextlib.asynccontextmanager
    async def _turn(self, user_id: str) -> AsyncIterator[None]:
        """Wait for the user's own pictures; no longer than one of them can take, if there is a limit at all."""
        lock = self._turns.setdefault(user_id, asyncio.Lock())
        limit = None if self.options.wait_s is None else self.options.give_up_s + self.options.wait_s
        async with _held(lock, limit, "your earlier pictures are still being decoded; try again"):
            yield

    @contextlib.asynccontextmanager
    async def _place(self, user_id: str) -> AsyncIterator[None]:
        """Wait for a free process."""
        wait_s, message = self.options.wait_s, "too many pictures are being decoded; try again"
        async with contextlib.AsyncExitStack() as places:
            if user_id in self._slow:
                await places.enter_async_context(_held(self._places_of_slow, wait_s, message))
            await places.enter_async_context(_held(self._places, wait_s, message))
            yield

    @contextlib.asynccontextmanager
    async def _timed(self, user_id: str) -> AsyncIterator[None]:
        """Remember the user if the block takes long."""
        began = time.monotonic()
        try:
            yield
        finally:
            if time.monotonic() - began >= self.options.slow_s:
                self._slow[user_id] = None


@contextlib.asynccontextmanager
async def _held(lock: asyncio.Lock | asyncio.Semaphore, wait_s: float | None, message: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(wait_s):
            await lock.acquire()
    except TimeoutError:
        raise UnavailableError(message, retry_after=2) from None
    try:
        yield
    finally:
        lock.release()
