"""How many processes a run starts: never more than can run, since the others would wait for ever without a word."""

from __future__ import annotations

import pytest

from s3seg.bulk.plan import Pool, choose_pool, memory_of
from s3seg.errors import InvalidRequestError
from tests.bulk.pretend import request_for

GB = 10**9


def choose(cpu=8, gpu=0, memory=64 * GB, asked=None, gpus=None, device="auto", can_grow=False, notes=None):
    return choose_pool(
        request_for(),
        cluster={"CPU": cpu, "GPU": gpu, "memory": memory},
        asked=asked,
        gpus=gpus,
        device=device,
        can_grow=can_grow,
        on_note=(notes if notes is not None else []).append,
    )


def test_a_process_for_each_processor_of_a_machine_without_gpus():
    assert choose() == Pool(8, 1, 0)


def test_no_more_processes_than_fit_into_memory():
    assert choose(memory=3.5 * GB).most == int(3.5 * GB // memory_of(request_for()))
    assert choose(memory=0.1 * GB).most == 1


@pytest.mark.parametrize(
    ("gpu", "gpus", "device", "pool"),
    [
        (2, None, "auto", Pool(2, 1, 1)),
        (2, 0.5, "auto", Pool(4, 1, 0.5)),
        (1, 0.1, "cuda", Pool(8, 1, 0.1)),
        (2, None, "cpu", Pool(8, 1, 0)),
        (2, 0, "auto", Pool(8, 1, 0)),
    ],
)
def test_gpus_are_shared_out(gpu, gpus, device, pool):
    assert choose(gpu=gpu, gpus=gpus, device=device) == pool


def test_more_processes_than_this_machine_has_room_for_are_lowered_and_the_user_is_told():
    notes = []
    assert choose(cpu=2, asked=4, notes=notes) == Pool(2, 1, 0)
    assert notes[0] == "4 processes do not fit: this machine has room for 2, and more would wait for ever"


def test_all_processors_may_be_taken_since_nothing_else_needs_one():
    assert choose(cpu=2, asked=2) == Pool(2, 1, 0)


def test_a_cluster_that_grows_is_asked_for_more_than_it_has():
    assert choose(cpu=0, gpu=0, asked=16, gpus=1, can_grow=True) == Pool(16, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpus": 1.0}, "needs 1 GPUs"),
        ({"cpu": 0}, "needs a processor, and this machine has 0 to give"),
        ({"asked": 0}, "1 or more, got 0"),
        ({"gpus": 1.5}, "fraction below 1 or a whole number"),
        ({"gpus": -1.0}, "fraction below 1 or a whole number"),
    ],
)
def test_what_could_never_run_is_refused(arguments, message):
    with pytest.raises(InvalidRequestError, match=message):
        choose(**arguments)
