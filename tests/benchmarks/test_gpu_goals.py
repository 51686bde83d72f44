"""Measured times become met, missed or unmeasured goals."""

from __future__ import annotations

import torch
from benchmarks.gpu import timing
from benchmarks.gpu.goals import goals
from benchmarks.gpu.timing import count_waits


def _time(program, what, ms, **columns):
    return {"program": program, "what": what, "ms": ms, "each_ms": ms, "of_the_rate": None, "peak_mb": None, **columns}


def _goals(*times, waits=()):
    found = goals({"Milliseconds": list(times), "Waits for the device": list(waits)})
    return {row["goal"]: row for row in found}


def test_nothing_measured_meets_no_goal():
    assert {row["met"] for row in goals({})} == {"not measured"}


def test_the_fastest_of_our_programs_counts():
    found = _goals(
        _time("s3seg", "image, batch 8", 160.0, each_ms=20.0, of_the_rate=0.35),
        _time("s3seg compiled", "image, batch 8", 104.0, each_ms=13.0, of_the_rate=0.54),
        _time("transformers", "image, batch 8", 8.0, each_ms=1.0, of_the_rate=0.9),
    )
    image = found["an image in a batch of 8, ms"]
    assert image == {**image, "measured": 13.0, "of": "s3seg compiled", "met": "yes", "wanted": "at most 14"}
    rate = found["image encoder, share of the card's rate"]
    assert rate == {**rate, "measured": 0.54, "of": "s3seg compiled", "met": "yes", "wanted": "at least 0.5"}


def test_shares_are_of_the_time_and_memory_of_transformers():
    found = _goals(
        _time("s3seg", "pixels to RLE, 1 prompt", 30.0, peak_mb=3000.0),
        _time("s3seg compiled", "pixels to RLE, 1 prompt", 20.0, peak_mb=1000.0),
        _time("transformers", "pixels to masks, 1 prompt", 50.0, peak_mb=4000.0),
        _time("s3seg", "pixels to RLE, 8 prompts", 100.0),
        _time("transformers", "pixels to masks, 8 prompts", 320.0),
    )
    assert found["the same, share of the time of transformers"]["measured"] == 0.4
    assert found["8 prompts on an image, share of the time of transformers, one by one"]["met"] == "no"
    memory = found["peak memory with 1 prompt, share of that of transformers"]
    assert (memory["measured"], memory["met"]) == (0.75, "no"), "of the network as it is, which needs no graphs"


def test_the_request_that_waits_most_counts():
    waits = [{"request": n, "line": "all", "waits": n} for n in (2, 3)] + [{"request": 3, "line": "a.py:1", "waits": 9}]
    assert _goals(waits=waits)["waits of a request"]["measured"] == 3


def test_an_event_is_one_wait_however_often_it_is_waited_for(monkeypatch):
    monkeypatch.setattr(timing.torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(timing.torch.cuda, "set_sync_debug_mode", lambda mode: None)

    class Event:
        def synchronize(self):
            pass

    monkeypatch.setattr(torch.cuda, "Event", Event)
    first, second = Event(), Event()

    def run():
        first.synchronize()
        for _ in range(3):
            second.synchronize()

    waits = count_waits(run)
    assert waits.total() == 2
    assert len(waits) == 2
    assert all("test_gpu_goals.py" in line for line in waits)
