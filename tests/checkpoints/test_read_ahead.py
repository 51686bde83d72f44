"""Weights are read from the disk in the background."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from s3seg.checkpoints.read_ahead import read_ahead

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no such advice")


def test_the_system_is_asked_for_every_byte_of_every_file_that_is_there(tmp_path, monkeypatch):
    sizes = {"a.safetensors": 0, "b.safetensors": 1, "c.safetensors": 3 * 2**17 + 5}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    asked: dict[str, list[range]] = {name: [] for name in sizes}
    advise = os.posix_fadvise

    def note(number, start, length, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        asked[Path(f"/proc/self/fd/{number}").readlink().name].append(range(start, start + length))
        advise(number, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", note)
    read_ahead([tmp_path / name for name in ("absent.safetensors", *sizes)])
    for thread in threading.enumerate():
        if thread.name == "s3seg-read-ahead":
            thread.join()
    for name, size in sizes.items():
        covered = [part.start for part in asked[name]], [part.stop for part in asked[name]]
        assert covered[0] == [0, *covered[1][:-1]][: len(covered[0])], "without gaps"
        assert max(covered[1], default=0) >= size
