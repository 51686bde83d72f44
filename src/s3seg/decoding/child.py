"""The main program of a decoding process: decode one picture after another until the service closes the pipe.

Started by `s3seg.decoding.process` with the function to run, the limit of memory, and the deadline of a picture.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from s3seg.decoding.messages import EndOfStreamError, read_message, write_message
from s3seg.errors import FileTooLargeError, ImageDecodeError

_MAX_REQUEST = 2**32 - 1
_KEPT_BYTES = 128 * 2**20
"""Resident memory, beyond that at the start, above which the process ends after a picture, to return it."""

_MAX_PICTURES = 1000
"""Pictures after which the process ends, whatever memory it has, in case a decoder leaks something else."""


def main() -> None:
    """Serve requests from standard input on standard output: ``child FUNCTION MEMORY DEADLINE``."""
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the service ends its children
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # nothing that a library prints may get between the replies
    name, memory, deadline_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    write_message(replies, {"ready": True})
    os.dup2(silence, 2)  # decoders print warnings about damaged pictures, one per picture
    _limit_memory(memory)
    _serve(function, requests, replies, memory=memory, deadline_s=deadline_s)


def _serve(
    function: Callable[..., tuple[dict[str, Any], bytes]],
    requests: IO[bytes],
    replies: IO[bytes],
    *,
    memory: int,
    deadline_s: float,
) -> None:
    resident_at_start = _memory_bytes()[1]
    for count in range(1, _MAX_PICTURES + 1):
        try:
            arguments, content = read_message(requests, max_body=_MAX_REQUEST)
        except EndOfStreamError:  # the service has ended, or wants this process to
            return
        _limit_time(deadline_s)
        reply, body = _reply(function, content, arguments, memory)
        _limit_time(0)
        del content
        last = count == _MAX_PICTURES or _memory_bytes()[1] > resident_at_start + _KEPT_BYTES
        write_message(replies, {**reply, "last": last}, body)
        if last:
            return
        del body


def _reply(
    function: Callable[..., tuple[dict[str, Any], bytes]], content: bytes, arguments: dict[str, Any], memory: int
) -> tuple[dict[str, Any], bytes]:
    try:
        result, body = function(content, **arguments)
    except ImageDecodeError as err:
        return {"error": "image", "message": str(err)}, b""
    except FileTooLargeError as err:
        return {"error": "size", "message": str(err)}, b""
    except MemoryError:
        name = arguments.get("name", "file")
        message = f"{name}: too large: decoding it takes more than the {memory / 1e9:.1f} GB of memory that are allowed"
        return {"error": "image", "message": message}, b""
    except Exception:
        return {"error": "internal", "message": traceback.format_exc()}, b""
    return {"result": result}, body


def _limit_memory(memory: int) -> None:
    """Limit the address space to what it is now, plus ``memory``; where the system has no such limit, do nothing.

    The estimate from the header refuses large pictures earlier and with a better message. This is for pictures that
    take more than estimated.
    """
    now = _memory_bytes()[0]
    if not now:
        return
    import resource

    limit = now + memory * 5 // 4  # the estimate from the header, which is made first, may be this far off
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))


def _limit_time(seconds: float) -> None:
    """End this process, even inside a decoder, once it has used so much processor time; 0 lifts the limit.

    Processor time, so that a busy machine does not turn good pictures into slow ones. Windows has no such timer; there
    the service kills the process after the same time by the clock.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _memory_bytes() -> tuple[int, int]:
    """Return the sizes of this process's address space and resident memory; zeros where there is no /proc."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * size, int(pages[1]) * size


if __name__ == "__main__":
    main()
