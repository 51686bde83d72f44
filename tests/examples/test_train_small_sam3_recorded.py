"""Recorded steps of the worked example, with a recorder for the CPU that stands in for a CUDA graph."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from train_small_sam3.batches import BatchMaker
from train_small_sam3.recorded import RecordedGradients, gradients
from train_small_sam3.settings import TINY
from train_small_sam3.state import resume, start
from train_small_sam3.step import losses
from train_small_sam3.train import learn_from

SETTINGS = replace(TINY, batch=4, prompts=4, queries=16, boxes=0.5, extra_texts=8, clicks=True, warm_heads=2)
learn = functools.partial(losses, fixed_shapes=True)


@pytest.fixture
def run(tmp_path, vocabulary, atlas):
    start(tmp_path / "run", SETTINGS, vocabulary, atlas, None)
    return tmp_path / "run"


class Recorder:
    """Keeps to what a CUDA graph does: each replay reads and writes the tensors of the recording, and no others."""

    def __init__(self, state):
        self.state, self.recorded, self.replayed = state, 0, 0

    def __call__(self, compute):
        done, written = compute(), self._gradients()
        self.recorded += 1

        def replay():
            self.replayed += 1
            again = compute()
            done.total.copy_(again.total)
            for name, part in done.parts.items():
                part.copy_(again.parts[name])
            for name, gradient in self._gradients().items():
                written[name].copy_(gradient)

        return done, replay

    def _gradients(self):
        return {name: w.grad for name, w in self.state.learned.items() if w.grad is not None}


def _train(run, vocabulary, atlas, compute_of, steps=5):
    state, settings, tokenizer = resume(run, vocabulary)
    maker, compute, totals = BatchMaker(settings, vocabulary, atlas, tokenizer), compute_of(state), []
    for step in range(steps):
        state.set_trainable(settings.trained_part, network=step >= settings.warm_heads)
        done = compute(state, maker[step], dense_only=False)
        learn_from(state, settings, enough=False, processes=1)
        totals.append(float(done.total))
    return totals, state


def test_recorded_steps_learn_what_other_steps_do(run, vocabulary, atlas):
    recorders = []

    def recorded(state):
        recorders.append(Recorder(state))
        return RecordedGradients(learn, recorders[-1])

    plain, expected = _train(run, vocabulary, atlas, lambda _: functools.partial(gradients, learn))
    replayed, found = _train(run, vocabulary, atlas, recorded)
    assert replayed == plain
    assert all(torch.equal(weight, found.learned[name]) for name, weight in expected.learned.items())
    assert (recorders[0].recorded, recorders[0].replayed) == (2, 7)  # twice: the network begins to learn later
    assert len(set(plain)) == len(plain)  # each batch is another one


def test_a_recording_that_gives_other_gradients_is_not_used(run, vocabulary, atlas, capsys):
    def wrong(state):
        recorder = Recorder(state)

        def record(compute):
            done, replay = recorder(compute)
            written = recorder._gradients()

            def replay_wrongly():
                replay()
                for gradient in written.values():
                    gradient.mul_(1.1)

            return done, replay_wrongly

        return RecordedGradients(learn, record)

    plain, _ = _train(run, vocabulary, atlas, lambda _: functools.partial(gradients, learn), steps=2)
    found, _ = _train(run, vocabulary, atlas, wrong, steps=2)
    assert found == plain
    assert "what is replayed differs by 0.1 from what it should be" in capsys.readouterr().out


def test_steps_that_cannot_be_recorded_are_computed_all_the_same(run, vocabulary, atlas, capsys):
    attempts = []

    def broken(compute):
        attempts.append(compute)
        raise RuntimeError("no graph here")

    plain, _ = _train(run, vocabulary, atlas, lambda _: functools.partial(gradients, learn), steps=2)
    found, _ = _train(run, vocabulary, atlas, lambda _: RecordedGradients(learn, broken), steps=2)
    assert found == plain
    assert len(attempts) == 1
    assert "steps are not recorded: no graph here" in capsys.readouterr().out
