"""One decoding process, as its service sees it: start it, send it a picture, kill it at the deadline."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from s3seg.decoding.messages import EndOfStreamError, read_message, write_message
from s3seg.errors import FileTooLargeError, ImageDecodeError, UnavailableError

_log = logging.getLogger(__name__)
_START_S = 120.0
_MAX_REPLY = 64 * 2**20

_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "HOME",
              "USERPROFILE", "LANG", "LC_ALL", "VIRTUAL_ENV")  # fmt: skip
"""Environment variables that a decoding process gets. The keys of the service are not among them."""

_ADDED = {
    "OMP_NUM_THREADS": "1",  # the pool has one process for each core that decoding may use
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_ARENA_MAX": "1",  # glibc then returns the memory of a picture when the picture is freed
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}


class DecodingProcess:
    """A child process that runs one function on one picture at a time. It is started by the first call.

    Args:
        function: ``"module:name"`` of a function that takes the bytes of a picture and JSON arguments as keywords, and
            returns a JSON object and bytes.
        memory: Bytes of memory that it may take beyond what it has after its imports; enforced on Linux.
        deadline_s: Seconds of processor time that a picture may take; by the clock on Windows, which has no timer
            of processor time.
        give_up_s: Seconds by the clock after which a picture is given up, however busy the machine is.
    """

    def __init__(self, function: str, *, memory: int, deadline_s: float, give_up_s: float = 60.0) -> None:
        self._command = [sys.executable, "-P", "-m", "s3seg.decoding.child", function, str(memory), str(deadline_s)]
        self._deadline_s = deadline_s
        self._give_up_s = give_up_s if hasattr(signal, "setitimer") else min(deadline_s, give_up_s)
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._release: Callable[[], object] = lambda: None
        self._starting = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Its process id; None before it has been started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process if it is not running, and wait until it has imported what it needs. Blocks.

        Raises:
            UnavailableError: It did not start, or was killed.
        """
        with self._starting:
            if self._process is None or self._process.poll() is not None:
                self.end()
                self._start()

    def _start(self) -> None:
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= _ADDED | {"PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is ours
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        except OSError as err:  # no memory, or too many processes or files
            _log.error("a decoding process cannot be started: %s", err)
            raise UnavailableError("a decoding process cannot be started; try again", retry_after=2) from err
        self._release = weakref.finalize(self, _end, process)
        self._process = process
        if self._killed:  # meanwhile
            process.kill()
        with _killing_after(_START_S, process):
            try:
                read_message(cast("IO[bytes]", process.stdout), max_body=0)
            except (EndOfStreamError, ValueError, OSError):
                self._raise_unavailable("a decoding process did not start", process)

    def decode(self, content: bytes, *, name: str, **arguments: Any) -> tuple[dict[str, Any], bytes]:
        """Run the function on a picture. Blocks until there is an answer or a time limit has passed.

        Raises:
            ImageDecodeError: The picture cannot be read, crashed its decoder, or takes too long or too much memory.
            FileTooLargeError: The function raised it.
            UnavailableError: The process did not start, was killed, or got too little processor time.
        """
        self.start()
        process = cast("subprocess.Popen[bytes]", self._process)
        with _killing_after(self._give_up_s, process) as late:
            try:
                write_message(cast("IO[bytes]", process.stdin), {**arguments, "name": name}, content)
                reply, body = read_message(cast("IO[bytes]", process.stdout), max_body=_MAX_REPLY)
            except (EndOfStreamError, ValueError, OSError):
                process.kill()
                self._raise_for_end(process, name, is_late=late.is_set())
                raise
        if reply.get("last"):
            self.end()
        if "error" in reply:
            _raise_error(reply)
        return reply["result"], body

    def kill(self) -> None:
        """Kill the process for good. May be called from any thread, while another waits for an answer."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """End the process; the next call starts another. Not while a call waits for an answer."""
        self._release()
        self._process = None

    def _raise_for_end(self, process: subprocess.Popen[bytes], name: str, *, is_late: bool) -> None:
        code = process.wait()
        self.end()
        if is_late and hasattr(signal, "setitimer") and not self._killed:
            self._raise_unavailable("a picture was not decoded in time: the machine is too busy", process)
        if is_late or code == -getattr(signal, "SIGPROF", 0):
            raise ImageDecodeError(
                f"{name}: takes too long to decode, more than {self._deadline_s:g} s of processor time; "
                "save it again as a plain PNG or baseline JPEG, or make it smaller"
            ) from None
        if code in (-getattr(signal, "SIGKILL", 0), 0) or self._killed:
            self._raise_unavailable("a decoding process was killed, perhaps because memory ran out", process)
        _log.warning("a picture crashed its decoding process", extra={"exit_code": code})
        raise ImageDecodeError(f"{name}: the file is damaged: its decoder crashed") from None

    def _raise_unavailable(self, what: str, process: subprocess.Popen[bytes]) -> None:
        self.end()
        if not self._killed:
            _log.error("%s", what, extra={"exit_code": process.returncode})
        raise UnavailableError(f"{what}; try again", retry_after=2) from None


@contextlib.contextmanager
def _killing_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill the process if the block takes longer; yields an event that is set then."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that may have ended already, and release what the system keeps of it."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not flushed cannot be written any more
                stream.close()


def _raise_error(reply: dict[str, Any]) -> None:
    message = str(reply.get("message"))
    if reply["error"] == "image":
        raise ImageDecodeError(message)
    if reply["error"] == "size":
        raise FileTooLargeError(message)
    raise RuntimeError(f"a decoding process failed:\n{message}")
