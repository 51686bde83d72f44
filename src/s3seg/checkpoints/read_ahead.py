"""Reading weights from the disk before they are needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

_AT_ONCE = 1 << 17  # bytes; of more, Linux reads only the beginning, as far as the device reads ahead by itself


def read_ahead(files: Sequence[Path]) -> None:
    """Let the system read files into its cache in the background, so that whoever needs them soon finds them there.

    What is cached already costs nothing. On systems other than Linux, and for files that cannot be read, nothing is
    done.
    """
    if hasattr(os, "posix_fadvise"):
        threading.Thread(target=_advise, args=(tuple(files),), name="s3seg-read-ahead", daemon=True).start()


def _advise(files: Sequence[Path]) -> None:
    for file in files:
        try:
            with file.open("rb") as opened:
                number, size = opened.fileno(), file.stat().st_size
                for start in range(0, size, _AT_ONCE):
                    os.posix_fadvise(number, start, _AT_ONCE, os.POSIX_FADV_WILLNEED)
        except OSError:  # who loads the weights reports it
            continue
