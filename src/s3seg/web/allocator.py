"""The C library's memory allocator, set up for a process that reads and makes pictures all day."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_KEPT = 256 * 2**20
_MAPPED_FROM = 32 * 2**20  # the most that glibc takes


def keep_freed_memory() -> bool:
    """Keep up to 256 MB of freed memory for the next picture, shared by all threads; whether that could be had.

    By default glibc gives the memory of each picture back to the system, above all in threads other than the first, and
    gets it again, emptied, page by page: reading a 2-megapixel JPEG then takes twice as long. Other C libraries than
    glibc are left as they are. To be called before threads start.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    options = ((_M_MMAP_THRESHOLD, _MAPPED_FROM), (_M_TRIM_THRESHOLD, _KEPT), (_M_ARENA_MAX, 1))
    return all(libc.mallopt(option, value) == 1 for option, value in options)
