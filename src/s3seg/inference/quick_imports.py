"""Importing PyTorch in less time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector while modules are imported.

    Importing PyTorch makes a quarter of a million objects that stay. The collector would look through them again and
    again, which takes a tenth of the time of the import, and find nothing to free.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
