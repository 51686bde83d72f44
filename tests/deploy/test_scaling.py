"""The loop that rents boxes, with a provider that counts in a file."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

SCALING = Path(__file__).parents[2] / "deploy" / "scaling"


def fake_s3seg(folder: Path, needed: str) -> None:
    (folder / "s3seg").write_text(f"#!/bin/sh\n{needed}\n")
    (folder / "s3seg").chmod(0o755)


@pytest.mark.parametrize(
    ("needed", "running", "settled"),
    [
        ('echo "{\\"workers_needed\\": 3}"', 1, 3),
        ('echo "{\\"workers_needed\\": 0}"', 2, 0),
        ('echo "{\\"workers_needed\\": 99}"', 3, 4),  # never more than MOST
        ("exit 2", 2, 2),  # nothing is done while the queue cannot be read
    ],
    ids=["more", "fewer", "too many", "unknown"],
)
def test_boxes_are_started_and_stopped(tmp_path: Path, needed: str, running: int, settled: int) -> None:
    fake_s3seg(tmp_path, needed)
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    for number in range(running):
        (boxes / str(number)).touch()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "START": f"touch {boxes}/$$",
        "STOP": f"rm {boxes}/$(ls {boxes} | head -n 1)",
        "COUNT": f"ls {boxes} | wc -l",
        "MOST": "4",
        "PAUSE": "0.01",
        "IDLE": "2",
    }
    with subprocess.Popen([str(SCALING / "rent.sh")], env=environment, stdout=subprocess.DEVNULL) as loop:
        give_up = time.monotonic() + 20
        while len(list(boxes.iterdir())) != settled and time.monotonic() < give_up:
            time.sleep(0.02)
        time.sleep(0.2)  # it stays so
        loop.kill()
    assert len(list(boxes.iterdir())) == settled


def test_the_scaler_of_keda_is_valid_yaml_and_names_our_metrics() -> None:
    scaler = yaml.safe_load((SCALING / "keda.yaml").read_text())
    (trigger,) = scaler["spec"]["triggers"]
    assert trigger["metadata"]["query"] == "max(s3seg_tasks_waiting) + max(s3seg_tasks_running)"
