"""The GPU measurements run at small size on the CPU, and refuse to pretend that there is a card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def _quick(part: str, out: Path) -> dict:
    done = _benchmark(part, "--quick", "--out", str(out))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return _written(part, out)


def _written(part: str, out: Path) -> dict:
    content = json.loads((out / f"{part}.json").read_text())
    assert content["complete"]
    assert content["failed"] == []
    assert content["about"]["torch"] == torch.__version__
    ET.parse(out / f"{part}.svg")
    return content


@pytest.mark.slow
def test_equal_compares_every_output_in_three_precisions(tmp_path):
    tables = _quick("equal", tmp_path)["tables"]
    rows = tables["Outputs, against transformers in fp32"]
    seen = {(row["model"], row["case"], row["precision"], row["what"]) for row in rows}
    assert len(seen) == len(rows) == 2 * 3 * 3 * 4
    for row in rows:
        largest = 1e-4 if row["precision"] == "fp32" else 0.3
        assert row["largest_error"] < largest, row
        assert row["ok"], row
    assert [row["ok"] for row in tables["Recorded reference outputs, fp32"]] == [True] * 4
    assert {
        row["precision"] for row in tables["Embedded checkpoint on the example pictures, against fp32 on the device"]
    }
    assert len(tables["Range of activations"]) == 4
    stages = tables["Relative error after each stage, text and boxes, against transformers in fp32"]
    assert len(stages) == 2 * 3 * 12
    assert all(row["relative"] < (1e-5 if row["precision"] == "fp32" else 0.1) for row in stages)


@pytest.mark.slow
def test_alone_times_ours_and_transformers(tmp_path):
    content = _quick("alone", tmp_path)
    times = {(row["program"], row["what"]): row["ms"] for row in content["tables"]["Milliseconds"]}
    for program in ("s3seg", "s3seg recorded", "s3seg compiled", "transformers"):
        assert {(program, f"image, batch {n}") for n in (1, 8)} | {(program, "1 prompt")} <= times.keys()
    for program in ("s3seg", "s3seg recorded", "s3seg compiled"):
        both = {f"pixels to RLE, {n}" for n in ("1 prompt", "8 prompts")}
        assert {(program, what) for what in {*both, "8 prompts", "JPEG to RLE, 1 prompt"}} <= times.keys()
    assert {"image, batch 16", "100 prompts", "1 prompt, absent", "1 prompt of a box"} <= {what for _, what in times}
    assert all(milliseconds > 0 for milliseconds in times.values())
    assert [one["what"] for one in content["left_out"]] == ["waits for the device"]
    for row in content["tables"]["Operations in several forms"]:
        assert row["form"] == "linear alone" or row["relative_error"] < 1e-5, row
    goals = content["tables"]["Goals"]
    unknown = ["image encoder, share of the card's rate", "waits of a request"]
    unknown.append("peak memory with 1 prompt, share of that of transformers")
    assert [row["goal"] for row in goals if row["met"] == "not measured"] == unknown
    assert len(goals) == 9


@pytest.mark.slow
def test_again_times_what_goals_need_and_compares_faster_passes_with_eager_ones(tmp_path):
    tables = _quick("again", tmp_path)["tables"]
    assert list(tables)[-2:] == ["Faster passes against eager ones, relative error", "Goals"]
    rows = tables["Faster passes against eager ones, relative error"]
    assert len(rows) == 7 * 3
    assert all(row["relative"] < 1e-4 and row["ok"] for row in rows)
    times = {(row["program"], row["what"]) for row in tables["Milliseconds"]}
    for program in ("s3seg recorded", "s3seg compiled"):
        both = {f"pixels to RLE, {n}" for n in ("1 prompt", "8 prompts")}
        assert {(program, what) for what in {*both, "1 prompt", "image, batch 8", "JPEG to RLE, 1 prompt"}} <= times
    assert len(tables["Pixels to RLE with 1 prompt by stage, host ms"]) == 4


@pytest.mark.slow
def test_serving_answers_every_request(tmp_path):
    (row,) = _quick("serving", tmp_path)["tables"]["Serving"]
    assert row["errors"] == 0
    assert row["answers"] > 0
    assert row["p50_ms"] <= row["p99_ms"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA card")
def test_without_a_card_it_says_so_and_exits_with_2(tmp_path):
    done = _benchmark("--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "No CUDA card was found" in done.stdout
    assert not (tmp_path / "out").exists()


def test_an_unknown_part_is_named(tmp_path):
    done = _benchmark("fast", "--quick", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "no such part: fast" in done.stderr
