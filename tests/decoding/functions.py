"""What the decoding processes of the tests run in place of a decoder."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from s3seg.errors import FileTooLargeError, ImageDecodeError

_kept: list[bytes] = []


def act(content: bytes, *, name: str, **arguments: Any) -> tuple[dict[str, Any], bytes]:
    """Do what the content says; answers with the process id, the arguments, and the content reversed."""
    match content.partition(b" ")[0].decode():
        case "hold":  # until the file that is named is gone
            while Path(content.decode().partition(" ")[2]).exists():
                time.sleep(0.01)
        case "compute":
            while True:
                pass
        case "bad":
            raise ImageDecodeError(f"{name}: bad")
        case "large":
            raise FileTooLargeError(f"{name}: large")
        case "bug":
            raise KeyError("bug")
        case "allocate":
            bytearray(10**9)
        case "keep":
            _kept.append(bytes(range(256)) * 2**20)
        case "crash":
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "print":
            print("a warning of the decoder")
            os.write(1, b"and one of its C code")
        case "garbage":
            for descriptor in range(3, 64):
                try:
                    os.write(descriptor, b"x" * 100)
                except OSError:
                    continue
    environment = sorted(os.environ)
    result = {"pid": os.getpid(), "arguments": arguments, "environment": environment, "modules": sorted(sys.modules)}
    return result, content[::-1]
