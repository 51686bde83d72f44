"""Compile the layers and the losses of a step, but not for longer than there is time for."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from s3seg.sam3 import positions
from s3seg.sam3.model import Sam3

from .batch import Batch
from .dense_losses import Losses, dense_losses
from .mask_losses import mask_losses
from .state import TrainingState
from .step import losses

AGAIN_SECONDS = 0.5
SHAPES_OF_A_LAYER = 64
"""For which a layer is compiled before PyTorch falls back to running it as it is; its own limit is 8."""


def compiled_within(
    seconds: float, state: TrainingState, batch: Batch, *, backend: str = "inductor", **loss_options: Any
) -> Callable[..., Losses]:  # fmt: skip
    """Return `step.losses` with compiled parts if compiling takes no longer than some seconds, else as it is.

    The layers of the network are replaced. Those of a stack share what is compiled, so that this takes seconds where
    the whole step would take minutes. The forward and the backward pass of a batch are run for it; nothing is learned.
    Call it in the main thread.

    Args:
        seconds: The most that it may take.
        state: What learns.
        batch: A batch as all others will be.
        backend: As for `torch.compile`.
        loss_options: As for `losses`: its precision and more.
    """
    from torch import _dynamo  # importing it takes a second

    _dynamo.config.recompile_limit = max(SHAPES_OF_A_LAYER, _dynamo.config.recompile_limit)
    for table in (positions.rotary_table, positions.encode_grid):
        torch.compiler.assume_constant_result(table)  # made once, not in every layer
    compiled = functools.partial(torch.compile, backend=backend, fullgraph=True, dynamic=False)
    layers = list(_layers(state.model))
    for owner, name in layers:
        setattr(owner, name, compiled(getattr(owner, name)))
    learn = functools.partial(losses, of_patches=compiled(dense_losses), of_masks=compiled(mask_losses))
    try:
        with _alarm(seconds):
            for dense_only in (True, False):  # the first is quicker to compile, and the second goes on from it
                learn(state.model, state.heads, batch, dense_only=dense_only, **loss_options).total.backward()
    except Exception as error:  # the compiler wraps what interrupts it in errors of its own
        for owner, name in layers:
            delattr(owner, name)  # the class's own is seen again
        _dynamo.reset()
        print(f"not compiled, since that failed or took longer than {seconds:.0f} s: {str(error)[:200]}", flush=True)
        return losses
    return learn


def _layers(model: Sam3) -> Iterable[tuple[nn.Module, str]]:
    """Yield what is compiled: modules, and names of their methods."""
    for layer in (*model.vision.trunk.layers, *model.text.layers):
        yield layer, "forward"
    for layer in model.encoder.layers:
        yield layer, "cross_attend"
    for layer in model.decoder.layers:
        yield layer, "forward"
    yield model.mask_head, "embed_pixels"


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise an error when the time is up, and again and again, since compilers catch errors on the way."""
    over = False

    def ring(*_: object) -> None:
        if not over:
            raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
