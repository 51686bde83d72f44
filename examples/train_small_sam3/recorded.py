"""Record the kernels of a step once, and replay them: launching thousands of them from Python takes too long.

All batches of a run have the same shapes, and a step on a GPU never waits for a result, so what is recorded for one
batch can be replayed for all others. What the optimisers do is not recorded: rates change, and a GPU is busy meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from .batch import Batch
from .dense_losses import Losses
from .state import TrainingState

WARM_UPS = 3
"""Times that a step is computed before it is recorded, while cuDNN tries its algorithms and tables are made."""
MOST_DIFFERENT = 0.02
"""How much the first gradients that are replayed may differ from the true ones; sums in another order make 0.001."""
Replay = Callable[[], None]


def gradients(
    learn: Callable[..., Losses], state: TrainingState, batch: Batch, *, dense_only: bool, **loss_options: Any
) -> Losses:  # fmt: skip
    """Compute the losses of a batch, and give all weights that learn their gradients.

    Args:
        learn: `step.losses`, or the same compiled.
        state: What learns.
        batch: The truth.
        dense_only: As for `losses`.
        loss_options: As for `losses`.

    Returns:
        The losses, detached.
    """
    for weight in state.learned.values():
        weight.grad = None
    done = learn(state.model, state.heads, batch, dense_only=dense_only, **loss_options)
    done.total.backward()
    return Losses(done.total.detach(), done.parts)


@dataclass(frozen=True)
class _Recording:
    batch: Batch
    """What the recorded kernels read: the next batch is copied into it."""
    done: Losses
    gradients: dict[nn.Parameter, Tensor]
    """Where they write."""
    replay: Replay


Record = Callable[[Callable[[], Losses]], tuple[Losses, Replay]]


class RecordedGradients:
    """Computes what `gradients` does, in kernels that were recorded with the first batch.

    They are recorded anew when other weights learn, or other losses count. If recording fails, each step is computed as
    it would be without it, and the reason is printed. The gradients and losses of a step are overwritten by the next
    one's.
    """

    def __init__(self, learn: Callable[..., Losses], record: Record | None = None) -> None:
        """Prepare to record.

        Args:
            learn: `step.losses`, or the same compiled.
            record: Runs a function, and returns what it returned and what runs the same kernels again; by default with
                a CUDA graph.
        """
        self._learn, self._record = learn, record or record_on_gpu
        self._kind: tuple = ()
        self._recording: _Recording | None = None
        self._failed = False

    def __call__(self, state: TrainingState, batch: Batch, *, dense_only: bool, **loss_options: Any) -> Losses:
        """Compute the losses of a batch, and give all weights that learn their gradients."""
        compute = functools.partial(gradients, self._learn, state, dense_only=dense_only, **loss_options)
        if self._failed:
            return compute(batch)
        weights = state.learned.values()
        kind = (dense_only, *(weight.requires_grad for weight in weights))
        if self._recording is None or kind != self._kind:
            self._kind, self._recording = kind, None  # its memory is free for the next one
            try:
                self._recording = self._recorded(compute, state, batch)
            except RuntimeError as error:
                self._failed = True
                print(f"steps are not recorded: {error}", flush=True)
                return compute(batch)
        recording = self._recording
        for field in fields(batch):
            getattr(recording.batch, field.name).copy_(getattr(batch, field.name))
        recording.replay()
        for weight in weights:
            weight.grad = recording.gradients.get(weight)
        return recording.done

    def _recorded(self, compute: Callable[[Batch], Losses], state: TrainingState, batch: Batch) -> _Recording:
        own = Batch(**{field.name: getattr(batch, field.name).clone() for field in fields(batch)})
        compute(own)
        true = torch.cat([gradient.flatten() for gradient in _gradients_of(state).values()])
        done, replay = self._record(lambda: compute(own))
        kept = _gradients_of(state)
        replay()
        replayed = torch.cat([gradient.flatten() for gradient in kept.values()])
        difference = float((replayed - true).norm() / true.norm())
        if not difference <= MOST_DIFFERENT:
            raise RuntimeError(f"what is replayed differs by {difference:.2g} from what it should be")
        return _Recording(own, done, kept, replay)


def _gradients_of(state: TrainingState) -> dict[nn.Parameter, Tensor]:
    return {weight: weight.grad for weight in state.learned.values() if weight.grad is not None}


def record_on_gpu(compute: Callable[[], Losses]) -> tuple[Losses, Replay]:
    """Record what a function launches on the current GPU; its results hold numbers once it has been replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # the thread that pins batches allocates memory meanwhile, which a stricter mode forbids
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        done = compute()
    return done, graph.replay
