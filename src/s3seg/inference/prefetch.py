"""Work ahead on threads, in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from s3seg.inference.process_guard import ProcessGuard

S = TypeVar("S")
T = TypeVar("T")


def map_ahead(function: Callable[[S], T], items: Iterable[S], *, ahead: int) -> Generator[tuple[S, T], None, None]:
    """Call a function for each item on threads, at most ``ahead`` items before the result is needed.

    The threads end with the iterator. An exception of the function is raised when its result is due.

    Yields:
        Each item and its result, in the order of the items.

    Raises:
        InferenceError: The process was forked since, so that the threads are gone.
    """
    guard = ProcessGuard("this iterator")
    pending: deque[tuple[S, Future[T]]] = deque()
    pool = ThreadPoolExecutor(max_workers=min(4, ahead), thread_name_prefix="s3seg-decode")
    try:
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > ahead:
                first, future = pending.popleft()
                yield first, future.result()
                guard.check()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
            guard.check()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group items into lists of ``size``; the last may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
