"""Which precision "auto" takes, and how it is switched off."""

from __future__ import annotations

import pytest
import torch

from s3seg.errors import InvalidRequestError
from s3seg.sam3 import cpu_precision
from s3seg.sam3.choices import choose_dtype
from s3seg.sam3.cpu_precision import bfloat16_is_native

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda:0", "mps"))


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S3SEG_DTYPE")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_on_a_cpu_that_multiplies_it_in_hardware_only(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr("s3seg.sam3.choices.bfloat16_is_native", lambda: native)
    assert choose_dtype("auto", CPU) == (torch.bfloat16 if native else torch.float32)
    assert (choose_dtype("auto", CUDA), choose_dtype("auto", MPS)) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_one_variable_sets_the_default_and_an_argument_overrides_it(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    monkeypatch.setattr("s3seg.sam3.choices.bfloat16_is_native", lambda: True)
    monkeypatch.setenv("S3SEG_DTYPE", "float32")
    assert choose_dtype("auto", device) == torch.float32
    assert choose_dtype("float16", device) == torch.float16
    monkeypatch.setenv("S3SEG_DTYPE", "auto")
    assert choose_dtype("auto", device) == torch.bfloat16


def test_a_wrong_precision_in_the_variable_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3SEG_DTYPE", "bf16")
    with pytest.raises(
        InvalidRequestError, match="unknown precision 'bf16' in S3SEG_DTYPE; choose one of auto, float32"
    ):
        choose_dtype("auto", CPU)


@pytest.mark.parametrize(
    ("seconds", "native"),
    [
        ({torch.float32: 0.010, torch.bfloat16: 0.001}, True),
        ({torch.float32: 0.010, torch.bfloat16: 0.009}, False),  # not worth other results
        ({torch.float32: 0.010, torch.bfloat16: 0.300}, False),  # emulated
    ],
)
def test_the_measured_times_decide(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[torch.dtype, float], native: bool
) -> None:
    bfloat16_is_native.cache_clear()
    monkeypatch.setattr(cpu_precision, "_fastest", seconds.__getitem__)
    assert bfloat16_is_native() is native
    bfloat16_is_native.cache_clear()


def test_a_build_that_cannot_multiply_bfloat16_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest(dtype: torch.dtype) -> float:
        if dtype is torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return 1.0

    bfloat16_is_native.cache_clear()
    monkeypatch.setattr(cpu_precision, "_fastest", fastest)
    assert not bfloat16_is_native()
    bfloat16_is_native.cache_clear()


def test_on_this_machine_an_answer_is_found() -> None:
    bfloat16_is_native.cache_clear()
    assert isinstance(bfloat16_is_native(), bool)
