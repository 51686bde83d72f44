"""The stages of a start are measured in the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cold_start

SOURCE = Path(__file__).parents[2] / "src"
LOADING = ["open the weights", "build the network", "compare with the file", "read the tokenizer", "position tables"]


@pytest.mark.slow
def test_the_stages_of_the_gpu_service_are_in_their_order():
    stages = cold_start.measure(SOURCE, None, segment=False)
    ends = [stages[name].end_s for name in ["start Python", "import the engine", "import torch", *LOADING]]
    assert ends == sorted(ends)
    assert stages["first answer of /health"].end_s < stages["first answer of /ready"].end_s < stages["all"].end_s
    assert stages["import torch"].own_s > 0.1
    assert stages["position tables"].end_s < stages["first answer of /ready"].end_s
    assert "decode a prompt" not in stages, "on a CPU no first picture is segmented"


@pytest.mark.slow
def test_the_stages_of_the_command_are_in_their_order_and_add_up():
    stages = cold_start.measure(SOURCE, None, segment=True)
    last = ["import torch", *LOADING, "decode a picture", "encode a picture", "decode a prompt", "all"]
    ends = [stages[name].end_s for name in last]
    assert ends == sorted(ends)
    own = sum(stage.own_s for name, stage in stages.items() if name != "all")
    assert own <= stages["all"].end_s


def test_weights_are_dropped_from_the_cache_and_stay_what_they_are(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 1000)
    cold_start.drop_from_cache(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights" * 1000
