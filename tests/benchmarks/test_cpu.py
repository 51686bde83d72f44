"""The measurements of the CPU, at small size: that they run, and count what they say."""

from __future__ import annotations

import contextlib

import pytest
import torch

from benchmarks import cpu
from s3seg.sam3 import predictor
from s3seg.sam3.config import Sam3Config
from tests.sam3.random_models import tiny_config


@pytest.fixture(scope="module")
def model():
    return cpu.random_model(Sam3Config.from_dict(tiny_config()))


def test_all_stages_of_a_prompt_are_measured(model):
    found = cpu.stages(model, runs=1)
    assert [stage.name for stage in found] == ["prompt", "encoder", "decoder", "masks"]
    assert all(stage.gflop > 0 and stage.seconds > 0 for stage in found)


def test_attention_is_counted(model, monkeypatch):
    """PyTorch's counter leaves out the fused kernel that the CPU uses."""
    counted = {stage.name: stage.gflop for stage in cpu.stages(model, runs=1)}
    monkeypatch.setattr(cpu, "sdpa_kernel", lambda _: contextlib.nullcontext())
    without = {stage.name: stage.gflop for stage in cpu.stages(model, runs=1)}
    tokens, layers = 8 * 8, model.config.encoder.depth - 1  # the first is computed once for an image
    products = 2 * 2 * tokens * tokens * model.config.channels * layers / 1e9  # queries by keys, and weights by values
    assert counted["encoder"] - without["encoder"] >= products


def test_random_weights_keep_activations_in_range(model):
    with torch.inference_mode():
        image = cpu.random_image(model)
        prompt = model.prompt(image, torch.randn(1, 4, model.config.channels), None, None)
        assert 0.01 < model.encode_prompted(image, prompt).std() < 100


def test_each_way_asks_for_all_prompts_and_leaves_the_usual_chunks(model, monkeypatch):
    usual = predictor._TOKENS_AT_ONCE_CPU
    monkeypatch.setattr(predictor, "_TOKENS_AT_ONCE_CPU", 2 * 8 * 8)
    sizes: list[int] = []
    encode = type(model).encode_prompted
    monkeypatch.setattr(
        type(model),
        "encode_prompted",
        lambda self, image, prompt: sizes.append(len(prompt.tokens)) or encode(self, image, prompt),
    )
    expected = {"one call": [2] * 4, "eight calls": [1] * 8, "one forward pass": [8]}
    for name, way in cpu.ways(model).items():
        sizes.clear()
        way()
        assert sizes == expected[name], name
    monkeypatch.undo()
    assert usual == predictor._TOKENS_AT_ONCE_CPU
