"""Every attention of the network is one that fused kernels take.

Which kernel runs is decided by PyTorch, from shapes, strides and masks. Without a card, the CPU's fused kernel stands
in for those of CUDA, and the conditions that CUDA adds (``sdp_utils_cpp.h`` in PyTorch) are checked one by one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from s3seg.sam3.predictor import BoxPrompt, Predictor, Query
from tests.sam3.random_models import random_oracle, tiny_config
from tests.sam3.small_tokenizer import merges, vocabulary, write_packed

QUERIES = [
    Query("cat"),
    Query("a red traffic light"),
    Query("dog", (BoxPrompt((0.4, 0.5, 0.3, 0.6), positive=True),)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.inference_mode():
        random_oracle(tiny_config(vocab_size=len(vocabulary(merges()))), folder, seed=6)
    write_packed(folder, merges())
    return folder


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)


@pytest.mark.parametrize("queries", [QUERIES, QUERIES[:1]], ids=["three", "one"])
def test_a_fused_kernel_takes_every_attention_and_agrees_with_the_definition(folder, image, queries):
    found = {}
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel([backend]):  # an attention that the kernel does not take is an error
            predictor = Predictor.from_path(folder, device="cpu", dtype="float32")
            found[backend] = predictor.predict(predictor.encode_images([image])[0], queries, threshold=-1)
    for fused, exact in zip(found[SDPBackend.FLASH_ATTENTION], found[SDPBackend.MATH], strict=True):
        np.testing.assert_allclose(fused.scores, exact.scores, atol=2e-5)
        torch.testing.assert_close(fused.mask_logits, exact.mask_logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_masks_and_biases_are_laid_out_as_the_kernels_of_cuda_want_them(folder, image, monkeypatch, dtype):
    seen = _record_attentions(monkeypatch)
    predictor = Predictor.from_path(folder, device="cpu", dtype=dtype)
    predictor.predict(predictor.encode_images([image])[0], QUERIES, threshold=-1)
    assert any(mask is not None and mask.is_floating_point() for _, mask in seen), "the decoder has a bias"
    for tensors, mask in seen:
        assert all(tensor.stride(-1) == 1 for tensor in tensors)
        assert len({tensor.dtype for tensor in tensors}) == 1
        if mask is not None:
            assert mask.stride(-1) == 1
            assert mask.dtype in (torch.bool, tensors[0].dtype), "cuDNN reads a bias of another type as its own"


def test_prompts_of_the_same_length_need_no_mask(folder, image, monkeypatch):
    """Flash attention takes no mask at all."""
    predictor = Predictor.from_path(folder, device="cpu", dtype="float32")
    features = predictor.encode_images([image])[0]
    seen = _record_attentions(monkeypatch)
    predictor.predict(features, [Query("cat"), Query("dog")], threshold=-1)
    masked = [mask for _, mask in seen if mask is not None]
    assert len(masked) == predictor.model.config.decoder.depth, "only the bias of each decoder layer"
    assert all(mask.is_floating_point() for mask in masked)


def _record_attentions(monkeypatch) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor | None]]:
    """Query, key and value, and the mask, of every attention from now on."""
    seen = []
    attend = F.scaled_dot_product_attention

    def record(query, key, value, attn_mask=None, **options):
        seen.append(((query, key, value), attn_mask))
        return attend(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    return seen
