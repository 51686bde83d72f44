"""Compile the losses of a step, but not for longer than there is time for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .batch import Batch
from .dense_losses import Losses
from .state import TrainingState
from .step import losses


def compiled_within(
    seconds: float, state: TrainingState, batch: Batch, *, precision: str, dense_too: bool
) -> Callable[..., Losses]:  # fmt: skip
    """Return `step.losses`, compiled if that takes no longer than some seconds, else as it is.

    The forward and the backward pass of a batch are run for it; nothing is learned. Call it in the main thread.

    Args:
        seconds: The most that it may take.
        state: What learns.
        batch: A batch as all others will be.
        precision: As for `losses`.
        dense_too: Whether steps with dense losses only will come as well.
    """
    learn = torch.compile(losses, dynamic=False)
    try:
        with _alarm(seconds):
            for dense_only in (True, False) if dense_too else (False,):
                learn(state.model, state.heads, batch, dense_only=dense_only, precision=precision).total.backward()
    except Exception as error:  # the compiler wraps what interrupts it in errors of its own
        torch._dynamo.reset()
        print(f"not compiled, since that failed or took longer than {seconds:.0f} s: {str(error)[:200]}", flush=True)
        return losses
    return learn


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
