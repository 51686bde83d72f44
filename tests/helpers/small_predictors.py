"""Predictors that tests load in a process of their own."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path

from s3seg import checkpoints
from s3seg.errors import CheckpointError
from s3seg.sam3.model import ImageFeatures
from s3seg.sam3.predictor import Predictor


class Watched(Predictor):
    """The embedded checkpoint, with methods that look at its process."""

    def images(self) -> int:
        """How many encoded images there are."""
        gc.collect()
        return sum(type(one) is ImageFeatures for one in gc.get_objects())

    def variables(self) -> dict[str, str]:
        return dict(os.environ)

    def print_something(self) -> None:
        sys.stdout.write("what libraries print\n" * 1000)
        sys.stdout.flush()

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def something_that_cannot_be_sent(self) -> object:
        return lambda: None

    def fail(self) -> None:
        raise ValueError("something that nobody foresaw")


def watched() -> Watched:
    return Watched.from_path(checkpoints.resolve("embedded").path, device="cpu", dtype="float32")  # type: ignore[return-value]


def missing() -> Predictor:
    raise CheckpointError("there are no weights here")


def dying() -> Predictor:
    os._exit(7)


def once(mark: Path) -> Predictor:
    """Load once, and never again."""
    if mark.exists():
        raise CheckpointError("the weights are gone")
    mark.touch()
    return watched()
