from __future__ import annotations

import pytest
import torch

from s3seg.sam3.device import prepare


@pytest.fixture(autouse=True)
def settings_of_pytorch(monkeypatch):
    """Those of a new process, and put back at the end."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_float32_on_cuda_is_not_rounded_to_tf32():
    prepare(torch.device("cuda:0"), torch.float32)
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_cuda_leaves_other_networks_of_the_process_alone(dtype):
    prepare(torch.device("cuda:1"), dtype)
    assert torch.backends.cudnn.allow_tf32


def test_attention_that_plans_each_shape_is_off_on_cuda_and_the_other_kernels_are_on():
    prepare(torch.device("cuda"), torch.bfloat16)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_other_devices_change_nothing():
    prepare(torch.device("cpu"), torch.float32)
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.cudnn_sdp_enabled()
