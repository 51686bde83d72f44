"""A digest that tells weights apart: it sees a tensor from its first value to its last, however large."""

from __future__ import annotations

import pytest
import torch

from s3seg.sam3.fingerprint import fingerprint


@pytest.mark.parametrize("size", [49_408 * 1024, 49_408 * 512, 2**24 + 2, 17, 16, 2, 1])
def test_tensors_of_every_size_have_a_fingerprint(size: int) -> None:
    same = torch.ones(1).expand(size)  # without memory for its values
    assert fingerprint({"a": same}) == fingerprint({"a": torch.ones(1).expand(size)})
    assert fingerprint({"a": same}) != fingerprint({"a": torch.zeros(1).expand(size)})


@pytest.mark.parametrize("place", [0, -1])
def test_the_first_and_the_last_value_count(place: int) -> None:
    changed = torch.zeros(1000)
    changed[place] = 1
    assert fingerprint({"a": changed}) != fingerprint({"a": torch.zeros(1000)})


def test_precision_and_order_of_the_tensors_do_not_count() -> None:
    one, other = torch.linspace(0, 1, 50).bfloat16(), torch.linspace(1, 2, 7).bfloat16()
    assert fingerprint({"a": one, "b": other}) == fingerprint({"b": other.float(), "a": one.float()})


def test_an_empty_tensor_is_left_out() -> None:
    assert fingerprint({"a": torch.zeros(0), "b": torch.ones(3)}) == fingerprint({"b": torch.ones(3)})
