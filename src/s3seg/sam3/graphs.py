"""Recordings of what a function launches on CUDA (CUDA graphs), made once for each combination of shapes."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor

RECORDED = "cuda"
"""The type of device that can record what it does."""

MOST_RECORDINGS = 32
"""The most recordings that are kept."""

_SHARE_OF_DEVICE = 1 / 16  # of the device's memory, for the inputs and outputs of all recordings
_WARM_UPS = 3  # runs before a recording: compile, and let libraries choose kernels and take their workspaces

_log = logging.getLogger(__name__)

Function = Callable[..., tuple[Tensor, ...]]
"""Takes tensors of one device and returns tensors; launches the same work for the same shapes, does not wait for the
device, and needs no memory of the host that is pinned."""


class Graphs:
    """Runs functions of tensors. On CUDA, each is recorded once for each combination of shapes, and then replayed.

    Safe to share between threads. Recordings share their working memory, which is right because only one of them runs
    at a time: a lock orders the threads, and an event the streams. The least recently used recordings are dropped when
    there are more than `MOST_RECORDINGS`, or when their inputs and outputs take more than a sixteenth of the device.
    If recording fails, functions are just called from then on, as on other devices; if memory runs out, only this
    function with these shapes, until `forget`. The objects of methods that are recorded are not kept alive.
    """

    def __init__(self) -> None:
        self._recorded: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()
        self._memory: _Memory | None = None
        self._without_room: set[tuple[Any, ...]] = set()
        self._lock = threading.Lock()
        self._failed = False

    def __call__(self, function: Function, *inputs: Tensor, constant: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Run a function of ``(*inputs, *constant)``. The results are the caller's: the next call leaves them alone.

        Args:
            function: See `Function`. A recording belongs to a function and the shapes of what it is given.
            inputs: Copied into the recording.
            constant: Tensors that nobody ever writes to: copied only if they are not those of the call before.
        """
        everything = (*inputs, *constant)
        if everything[0].device.type != RECORDED:
            return function(*everything)
        key = (_identity(function), *((tensor.shape, tensor.dtype) for tensor in everything))
        with self._lock:
            graph = self._recorded.get(key) or self._record(key, function, everything)
            if graph is not None:
                self._recorded.move_to_end(key)
                return graph.replay(inputs, constant)
        return function(*everything)

    def forget(self) -> None:
        """Drop all recordings, and with them their memory. They are made again when they are needed."""
        with self._lock:
            self._recorded.clear()
            self._without_room.clear()
            self._memory = None

    def _record(self, key: tuple[Any, ...], function: Function, inputs: Sequence[Tensor]) -> _Graph | None:
        """Record a function; None if it is too large, does not fit into memory, or cannot be recorded."""
        if self._failed or key in self._without_room:
            return None
        memory = self._memory = self._memory or _Memory(inputs[0].device)
        if 2 * sum(tensor.nbytes for tensor in inputs) > memory.limit:
            return None
        while len(self._recorded) >= MOST_RECORDINGS:  # before recording: nothing may be freed meanwhile
            self._recorded.popitem(last=False)
        try:
            graph = self._recorded[key] = _Graph(function, inputs, memory)
        except torch.OutOfMemoryError:
            self._recorded.clear()
            if len(self._without_room) >= MOST_RECORDINGS:
                self._without_room.clear()
            self._without_room.add(key)  # each try runs the function several times, and costs the other recordings
            return None
        except RuntimeError as err:
            self._failed = True
            self._recorded.clear()
            _log.warning("CUDA graphs cannot be recorded here; the network runs without them, slower: %s", err)
            return None
        while len(self._recorded) > 1 and sum(one.nbytes for one in self._recorded.values()) > memory.limit:
            self._recorded.popitem(last=False)
        return graph


def _identity(function: Function) -> Any:
    """Return what tells functions apart, without keeping the object of a method, which may own the recordings."""
    return weakref.WeakMethod(function) if isinstance(function, MethodType) else function


class _Memory:
    """What the recordings of a device share.

    Attributes:
        stream: On which they are recorded: libraries keep a workspace for every stream.
        pool: The memory of what they compute. One recording may overwrite what another has left there.
        limit: Bytes that their inputs and outputs may take together.
        done: When the last one has run and its results have been copied.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.limit = int(_total_memory(device) * _SHARE_OF_DEVICE)
        self.stream: Any = None
        self.pool: Any = None
        self.done: Any = None

    def prepare(self) -> None:
        """Ask CUDA for a stream, a pool and an event, once."""
        if self.stream is None:
            self.stream = torch.cuda.Stream(self.device)
            self.pool = torch.cuda.graph_pool_handle()
            self.done = torch.cuda.Event()


def _total_memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


class _Graph:
    """One recording: inputs and outputs at fixed addresses, and the kernels between them."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], memory: _Memory) -> None:
        memory.prepare()
        self._memory = memory
        self._inputs = [tensor.clone() for tensor in inputs]
        self._constant: list[weakref.ref[Tensor]] = []
        with torch.cuda.device(memory.device):
            caller = torch.cuda.current_stream()
            memory.stream.wait_stream(caller)
            memory.stream.wait_event(memory.done)
            try:
                with torch.cuda.stream(memory.stream):
                    for _ in range(_WARM_UPS):
                        function(*self._inputs)
                caller.wait_stream(memory.stream)
                self._graph = torch.cuda.CUDAGraph()
                # other threads may go on using the device, on other streams: "thread_local" lets them
                with torch.cuda.graph(
                    self._graph, pool=memory.pool, stream=memory.stream, capture_error_mode="thread_local"
                ):
                    self._outputs = function(*self._inputs)
            except BaseException:
                torch.cuda.set_stream(caller)  # PyTorch leaves that of a recording that failed
                raise
        self.nbytes = sum(tensor.nbytes for tensor in (*self._inputs, *self._outputs))

    def replay(self, inputs: Sequence[Tensor], constant: Sequence[Tensor]) -> tuple[Tensor, ...]:
        stream = torch.cuda.current_stream(self._memory.device)
        stream.wait_event(self._memory.done)
        before, self._constant = self._constant, []  # if this fails, nothing counts as copied
        try:
            copy_inputs(self._inputs, inputs, constant, before)
            self._graph.replay()
            outputs = tuple(output.clone() for output in self._outputs)
        finally:
            self._memory.done.record(stream)  # also if memory ran out: what was launched runs all the same
        self._constant = [weakref.ref(tensor) for tensor in constant]
        return outputs


def copy_inputs(
    own: Sequence[Tensor],
    inputs: Sequence[Tensor],
    constant: Sequence[Tensor],
    before: Sequence[weakref.ref[Tensor]],
) -> int:
    """Copy what is given into a recording's own tensors, and return how many were copied.

    Args:
        own: The recording's: those for ``inputs``, then those for ``constant``.
        inputs: Always copied.
        constant: Not copied where they are the very tensors of ``before``.
        before: The constant tensors that were copied last; empty before the first time.
    """
    held = [ref() for ref in before]
    new = [i for i, tensor in enumerate(constant) if i >= len(held) or held[i] is not tensor]
    pairs = [*zip(own, inputs, strict=False), *((own[len(inputs) + i], constant[i]) for i in new)]
    for mine, given in pairs:
        mine.copy_(given, non_blocking=True)
    return len(pairs)
