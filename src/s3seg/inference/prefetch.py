"""Work ahead on threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from s3seg.inference.process_guard import ProcessGuard

S = TypeVar("S")
T = TypeVar("T")


def map_ahead(
    function: Callable[[S], T], items: Iterable[S], *, ahead: int, may_change: Callable[[S], bool]
) -> Generator[tuple[S, T], None, None]:
    """Call a function for each item on threads, at most ``ahead`` items before the result is needed.

    The threads end with the iterator. An exception of the function is raised when its result is due, and one of
    ``items`` after the results of those that came before it.

    Args:
        function: What to call.
        items: The items.
        ahead: How many.
        may_change: Whether an item may change when the next one is asked for, such as a PIL picture whose frames are
            iterated over. The next one is then asked for when the function has returned.

    Yields:
        Each item and its result, in the order of the items.

    Raises:
        InferenceError: The process was forked since, so that the threads are gone.
    """
    guard = ProcessGuard("this iterator")
    pending: deque[tuple[S, Future[T]]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(4, ahead), thread_name_prefix="s3seg-decode")
    failure: Exception | None = None
    iterator = iter(items)
    try:
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                break
            except Exception as err:
                failure = err
                break
            future = pool.submit(function, item)
            if may_change(item):
                wait([future])
            pending.append((item, future))
            if len(pending) > ahead:
                first, future = pending.popleft()
                yield first, future.result()
                guard.check()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
            guard.check()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group items into lists of ``size``; the last may be shorter, also if the iteration fails after it."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                full, batch = batch, []
                yield full
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
