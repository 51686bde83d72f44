"""What the services ask of the C library, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from s3seg.web.allocator import keep_freed_memory

FAULTS = """
import sys, threading, resource, numpy
from s3seg.web.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def fill():
    for _ in range(50):
        numpy.empty(8 * 2**20, numpy.uint8).fill(1)

def on_a_thread():
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()

on_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
on_a_thread()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is set up")
def test_memory_of_one_picture_is_there_for_the_next():
    def faults(what: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < faults("default") / 4


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
