"""Refuse to run in a forked child process, where it would wait for ever for threads that a fork does not copy."""

from __future__ import annotations

import os

from s3seg.errors import InferenceError


class ProcessGuard:
    """Remembers the process that it was made in."""

    def __init__(self, what: str) -> None:
        """Take the current process as the right one.

        Args:
            what: What is guarded, as the subject of the error message.
        """
        self._what = what
        self._process = os.getpid()

    def check(self) -> None:
        """Raise an error in any other process.

        Raises:
            InferenceError: The process is a fork of the right one; the message says what to do.
        """
        if os.getpid() != self._process:
            raise InferenceError(
                f"{self._what} was made in process {self._process} and cannot be used in process {os.getpid()}, "
                "which was forked from it: the threads of the network are not copied. Make a Segmenter in the child "
                "process, or start processes with multiprocessing.get_context('spawn')"
            )


def refuse_copying(what: str) -> TypeError:
    """Return the error for pickling or copying an object that belongs to its process."""
    return TypeError(
        f"cannot pickle or copy {what}: it belongs to the process that made it. Within a process, share it (it is safe "
        "between threads); for other processes, make a Segmenter in each, for example in the initializer of a "
        "multiprocessing.Pool, and send pictures and results, which can be pickled"
    )
