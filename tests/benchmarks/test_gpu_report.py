"""How a part of the GPU measurements keeps its time and its results."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import torch
from benchmarks.gpu import command
from benchmarks.gpu.activations import largest_activations
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.report import Report, Step, bar_chart


def _read(folder):
    return json.loads((folder / "part.json").read_text())


def test_a_step_that_would_not_end_in_time_is_left_out_and_named(tmp_path):
    ran = []
    report = Report("part", tmp_path, {})
    steps = [Step("long", lambda: ran.append("long"), 31), Step("short", lambda: ran.append("short"), 29)]
    report.run(steps, Deadline(130.0, clock=lambda: 100.0))
    assert ran == ["short"]
    assert _read(tmp_path)["left_out"] == [{"what": "long", "why": "takes up to 31 s, and 30 s were left"}]


def test_an_error_ends_its_step_only(tmp_path, capsys):
    report = Report("part", tmp_path, {})

    def fail() -> None:
        report.add("figures", ms=1.0)
        raise RuntimeError("no kernel for this shape")

    report.run([Step("a", fail, 0), Step("b", lambda: report.add("figures", ms=2.0), 0)], Deadline(float("inf")))
    assert not report.finish()
    content = _read(tmp_path)
    assert [row["ms"] for row in content["tables"]["figures"]] == [1.0, 2.0]
    assert content["failed"] == [{"what": "a", "error": "RuntimeError: no kernel for this shape"}]


def test_rows_are_on_the_disk_before_the_part_ends(tmp_path):
    report = Report("part", tmp_path, {"quick": True})
    report.add("figures", ms=float("nan"))
    content = _read(tmp_path)
    assert content["tables"] == {"figures": [{"ms": "nan"}]}
    assert not content["complete"]


def test_a_comparison_that_is_off_makes_the_part_fail(tmp_path):
    report = Report("part", tmp_path, {})
    report.add("figures", ok=True)
    assert report.finish()
    report.add("figures", ok=False)
    assert not report.finish()


def test_a_part_whose_time_is_up_is_ended_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "_QUICK_SECONDS", 0)
    Report("alone", tmp_path, {"about": {}}).add("figures", ms=1.0)
    kept = (tmp_path / "alone.json").read_text()
    monkeypatch.setattr(command.subprocess, "Popen", _never_ending(tmp_path / "alone.json", kept))
    assert command.main(["alone", "--quick", "--out", str(tmp_path)]) == 1
    content = json.loads((tmp_path / "alone.json").read_text())
    assert content["left_out"] == [{"what": "the rest of this part", "why": "its time of 0 s was up"}]
    assert content["tables"] == {"figures": [{"ms": 1.0}]}
    assert "Not in order: alone" in capsys.readouterr().out


def _never_ending(path, kept):
    """A process that has written a row and then hangs."""
    real = subprocess.Popen

    def start(*_, **options):
        path.write_text(kept)
        return real([sys.executable, "-c", "import time; time.sleep(600)"], **options)

    return start


def test_a_deadline_that_has_passed_leaves_no_time():
    assert Deadline(5.0, clock=lambda: 7.0).left == 0
    assert not Deadline(5.0, clock=lambda: 7.0).allows(0)


def test_bars_are_as_long_as_their_values():
    svg = ET.fromstring(bar_chart("a < b", {"one": 1.0, "four": 4.0}, unit="ms"))
    _, *widths = (bar.get("width") for bar in svg.iter("{http://www.w3.org/2000/svg}rect"))  # the first is the ground
    assert widths == ["105.0", "420.0"]


def test_activations_that_overflow_are_named_by_module():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
            self.small.weight.data.fill_(-300.0)
            self.large.weight.data.fill_(300.0)

        def forward(self, x):
            return self.large(self.small(x))

    with torch.inference_mode():
        found = largest_activations(Network().half(), lambda one: one(torch.full((2, 1), 1.0).half()))
    assert found == {"small": (300.0, 0), "large": (0.0, 2)}
