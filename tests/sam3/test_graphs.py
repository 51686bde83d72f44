"""When something is recorded, what is dropped, and who owns results. With a pretended CUDA: replaying is PyTorch's."""

from __future__ import annotations

import contextlib
import gc
import logging
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from s3seg.sam3 import graphs
from s3seg.sam3.graphs import Graphs, copy_inputs


class Recording:
    """Stands in for a recorded graph: own inputs and outputs at fixed addresses, and a function between them."""

    made: list[tuple[int, ...]]

    def __init__(self, function, inputs, memory) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._constant: list[weakref.ref[torch.Tensor]] = []
        self._function = function
        self._outputs = function(*self._inputs)
        self.nbytes = sum(tensor.nbytes for tensor in (*self._inputs, *self._outputs))
        Recording.made.append(tuple(len(tensor) for tensor in inputs))

    def replay(self, inputs, constant):
        copy_inputs(self._inputs, inputs, constant, self._constant)
        self._constant = [weakref.ref(tensor) for tensor in constant]
        for own, new in zip(self._outputs, self._function(*self._inputs), strict=True):
            own.copy_(new)
        return tuple(output.clone() for output in self._outputs)


@pytest.fixture
def recorded(monkeypatch) -> list[tuple[int, ...]]:
    """The lengths of the inputs of what has been recorded."""
    Recording.made = []
    monkeypatch.setattr(graphs, "_Graph", Recording)
    monkeypatch.setattr(graphs, "RECORDED", "cpu")
    monkeypatch.setattr(graphs, "_total_memory", lambda device: 16_000)
    return Recording.made


@contextlib.contextmanager
def without_garbage_collection():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def double(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x * 2,)


def add(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x + y,)


def test_each_function_and_shape_is_recorded_once(recorded):
    run = Graphs()
    for length in (2, 3, 2, 3, 2):
        x = torch.randn(length)
        assert torch.equal(run(double, x)[0], x * 2)
        assert torch.equal(run(add, x, x)[0], x * 2)
    assert recorded == [(2,), (2, 2), (3,), (3, 3)]


def test_a_result_outlives_the_next_call(recorded):
    run = Graphs()
    first = run(double, torch.ones(2))[0]
    run(double, torch.zeros(2))
    assert first.tolist() == [2, 2]


def test_only_the_least_recently_used_recording_is_dropped(recorded, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_RECORDINGS", 2)
    run = Graphs()
    for length in (1, 2, 1, 3, 1, 2):
        run(double, torch.ones(length))
    assert recorded == [(1,), (2,), (3,), (2,)]


def test_recordings_take_no_more_memory_than_a_share_of_the_device(recorded):
    run = Graphs()
    for length in (50, 60, 50, 60):  # 400 and 480 of 1,000 bytes
        run(double, torch.ones(length))
    assert len(recorded) == 2
    run(double, torch.ones(70))
    run(double, torch.ones(50))
    assert recorded == [(50,), (60,), (70,), (50,)]


def test_what_is_too_large_is_called_without_a_recording(recorded):
    x = torch.ones(126)
    assert torch.equal(Graphs()(double, x)[0], 2 * x)
    assert recorded == []


def test_forgotten_recordings_are_made_again(recorded):
    run = Graphs()
    run(double, torch.ones(2))
    run.forget()
    run(double, torch.ones(2))
    assert recorded == [(2,), (2,)]


def test_a_failure_is_logged_once_and_the_functions_are_called(recorded, monkeypatch, caplog):
    attempts = []

    def fail(*_) -> None:
        attempts.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "_Graph", fail)
    run = Graphs()
    with caplog.at_level(logging.WARNING):
        for length in (1, 2, 1):
            assert run(double, torch.ones(length))[0].tolist() == [2] * length
    assert len(attempts) == 1
    (record,) = caplog.records
    assert "operation not permitted" in record.getMessage()


def test_without_memory_for_a_recording_the_function_is_called_and_others_are_dropped(recorded, monkeypatch):
    run = Graphs()
    run(double, torch.ones(1))

    def fail(*_) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(graphs, "_Graph", fail)
        assert run(double, torch.ones(2))[0].tolist() == [2, 2]
    run(double, torch.ones(1))
    assert recorded == [(1,), (1,)]


def test_what_did_not_fit_into_memory_is_not_tried_with_each_call(recorded, monkeypatch):
    run, attempts = Graphs(), []

    def fail(*_) -> None:
        attempts.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(graphs, "_Graph", fail)
        for _ in range(3):
            assert run(double, torch.ones(2))[0].tolist() == [2, 2]
    assert len(attempts) == 1
    run(double, torch.ones(2))
    assert recorded == []
    run.forget()
    run(double, torch.ones(2))
    assert recorded == [(2,)]


def test_recordings_do_not_keep_their_owner_in_memory(recorded, monkeypatch):
    made = []

    def record(*_) -> SimpleNamespace:
        made.append(1)
        return SimpleNamespace(nbytes=1, replay=lambda inputs, constant: ())

    monkeypatch.setattr(graphs, "_Graph", record)

    class Owner:
        def __init__(self) -> None:
            self.graphs = Graphs()

        def double(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (x * 2,)

    owner, other = Owner(), Owner()
    owner.graphs(owner.double, torch.ones(1))
    owner.graphs(owner.double, torch.ones(1))
    owner.graphs(other.double, torch.ones(1))  # the same function, of another object
    assert len(made) == 2
    gone = weakref.ref(owner)
    with without_garbage_collection():
        del owner
        assert gone() is None


def test_on_other_devices_the_function_is_called():
    calls = []
    result = Graphs()(lambda x: calls.append(1) or (x * 2,), torch.ones(2))
    assert result[0].tolist() == [2, 2]
    assert calls == [1]


class TestFailedReplay:
    """Memory runs out while the results are copied, after the recording was launched."""

    @pytest.fixture
    def graph(self, monkeypatch):
        graph: Any = object.__new__(graphs._Graph)
        self.events = events = []
        stream = SimpleNamespace(wait_event=lambda event: events.append("wait"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
        done = SimpleNamespace(record=lambda stream: events.append("record"))
        graph._memory = SimpleNamespace(device=torch.device("cpu"), done=done)
        graph._inputs = [torch.zeros(1), torch.zeros(1)]
        graph._constant = []
        graph._graph = SimpleNamespace(replay=lambda: events.append("replay"))
        graph._outputs = [torch.zeros(1)]
        return graph

    def fail(self, graph, constant):
        def clone() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        outputs, graph._outputs = graph._outputs, [SimpleNamespace(clone=clone)]
        with pytest.raises(torch.OutOfMemoryError):
            graph.replay([torch.ones(1)], [constant])
        graph._outputs = outputs

    def test_others_wait_until_what_was_launched_has_run(self, graph):
        self.fail(graph, torch.ones(1))
        assert self.events == ["wait", "replay", "record"]

    def test_what_was_copied_when_it_failed_does_not_count_as_the_tensor_before(self, graph, monkeypatch):
        image = torch.ones(1)
        graph.replay([torch.ones(1)], [image])

        def fail_at_the_end(*given) -> None:
            copy_inputs(*given)
            raise RuntimeError("CUDA error")

        with monkeypatch.context() as patch:
            patch.setattr(graphs, "copy_inputs", fail_at_the_end)
            with pytest.raises(RuntimeError):
                graph.replay([torch.ones(1)], [torch.full((1,), 9.0)])
        graph.replay([torch.ones(1)], [image])
        assert graph._inputs[1].item() == 1


class TestConstantInputs:
    def test_the_same_tensor_is_copied_once(self):
        own, x, image = [torch.zeros(1), torch.zeros(1)], torch.ones(1), torch.full((1,), 5.0)
        assert copy_inputs(own, [x], [image], []) == 2
        assert copy_inputs(own, [x], [image], [weakref.ref(image)]) == 1
        assert [one.item() for one in own] == [1, 5]

    def test_another_tensor_is_copied_even_if_the_first_is_gone(self):
        own, image = [torch.zeros(1)], torch.ones(1)
        before = [weakref.ref(image)]
        del image
        assert copy_inputs(own, [], [torch.full((1,), 7.0)], before) == 1
        assert own[0].item() == 7

    def test_a_recording_answers_for_the_image_that_it_is_given(self, recorded):
        run, x = Graphs(), torch.ones(1)
        images = [torch.full((1,), value) for value in (2.0, 3.0)]
        found = [run(add, x, constant=[images[which]])[0].item() for which in (0, 0, 1, 1, 0)]
        assert found == [3, 3, 4, 4, 3]
        assert len(recorded) == 1
