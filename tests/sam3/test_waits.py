"""On CUDA the host waits twice for a request. Proven without a card: PyTorch's device "meta" stands in for it.

Tensors there have no data, so every operation whose result the host would have to wait for (``.item()``, boolean
indexing) is an error. The copies between host and device are watched here.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from s3seg.sam3 import predictor, transfers
from s3seg.sam3.config import Sam3Config
from s3seg.sam3.heads import Scoring
from s3seg.sam3.load import empty_model
from s3seg.sam3.predictor import BoxPrompt, Predictor, Query
from tests.sam3.random_models import tiny_config

CARD = torch.device("meta")
LIKE = BoxPrompt((0.4, 0.5, 0.3, 0.6), positive=True)
WORDS = [Query("a" * length) for length in (1, 5, 2, 2, 7, 3, 1, 4)]
BOXES = [Query("ab", (LIKE,)), Query("abc", (LIKE, LIKE, LIKE)), Query("abcd")]


class Card:
    """A pretended card.

    Attributes:
        waits: Events that the host waited for.
        copies: Copies to the device.
        scores: The score of the best instance of each prompt, which the host reads after the first wait.
    """

    def __init__(self, scores: list[float]) -> None:
        self.waits: set[object] = set()
        self.scores = scores
        self.copies = 0
        self.pinned: list[torch.Tensor] = []

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pinned.append(tensor)
        return tensor

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return any(tensor.data_ptr() == one.data_ptr() for one in self.pinned)


class NoWaits(TorchDispatchMode):
    """Refuses copies for which the host would wait."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card
        self._computed: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)}
        given |= kwargs or {}
        if func.overloadpacket is torch.ops.aten.empty and given.pop("pin_memory", False):
            return self._card.pin(func(**given))
        if func.overloadpacket is torch.ops.aten.copy_ and given["self"].device != given["src"].device:
            assert given["self"].device.type == "cpu", "not how copies to the device are made"
            assert given["non_blocking"], "a copy to the host that waits"
            assert self._card.is_pinned(given["self"]), "a copy to memory that is not pinned waits"
            return given["self"]
        if func.overloadpacket is torch.ops.aten.index:
            places = [one for one in given["indices"] if one is not None]
            listed = [one for one in places if not any(one is other for other in self._computed)]
            assert not listed, "a list of places is copied to the device, and waited for"
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self._computed.append(result)
        source = given.get("self")
        if isinstance(result, torch.Tensor) and isinstance(source, torch.Tensor) and source.device != result.device:
            assert result.device == CARD, "a copy to the host that waits"
            assert given.get("non_blocking"), "a copy to the device that waits"
            assert self._card.is_pinned(source), "a copy from memory that is not pinned waits"
            self._card.copies += 1
        return result


@contextmanager
def no_numbers_copied():
    """Refuses tensors that are made of numbers of the host on the device, which no dispatch mode sees."""
    make = torch.tensor

    def made(*args, device=None, **options):
        assert device is None, "numbers of the host are copied to the device, and waited for"
        return make(*args, **options)

    def new(like, numbers):
        return made(numbers, device=like.device)

    with mock.patch.object(torch, "tensor", made), mock.patch.object(torch.Tensor, "new_tensor", new):
        yield


@pytest.fixture
def card(monkeypatch) -> Card:
    card = Card([0.9] * 8)

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking

        def record(self, stream) -> None: ...

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            card.waits.add(self)

    class Copies(transfers.HostCopies):
        def wait(self):
            return [_packed(one.shape, card.scores) if one.ndim == 2 else one for one in super().wait()]

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: card.pin(tensor))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(predictor, "HostCopies", Copies)
    monkeypatch.setattr(transfers, "ASYNCHRONOUS", CARD.type)
    return card


def _packed(shape: torch.Size, scores: list[float]) -> torch.Tensor:
    packed = torch.zeros(shape)
    packed[:, 0] = 1.0
    packed[:, 1] = torch.tensor(scores[: shape[0]])
    return packed


def _request(card: Card, queries: list[Query], *, threshold: float = 0.5) -> list[int]:
    """Encode an image, predict, and wait for the masks; returns how many instances each prompt has."""
    network = Predictor(
        empty_model(Sam3Config.from_dict(tiny_config())).eval(),
        lambda prompt: [0, *[5] * len(prompt), 1],  # type: ignore[arg-type]
    )
    resized = torch.zeros(1, 3, network.image_size, network.image_size, dtype=torch.uint8)
    with no_numbers_copied(), NoWaits(card):
        image = network.encode_resized([resized])[0]
        assert not card.waits
        found = network.predict(image, queries, threshold=threshold)
        assert len(card.waits) == 1
        return [len(one.complete().mask_logits) for one in found]


@pytest.mark.parametrize("queries", [WORDS, WORDS[:1], WORDS[2:4], BOXES], ids=["eight", "one", "alike", "boxes"])
def test_a_request_waits_twice(card, queries):
    assert _request(card, queries) == [1] * len(queries)
    assert len(card.waits) == 2
    assert card.copies


def test_some_prompts_without_instances_cost_no_wait(card):
    card.scores = [0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.9]
    assert _request(card, WORDS) == [1, 0, 1, 0, 0, 1, 0, 1]
    assert len(card.waits) == 2


def test_prompts_without_instances_wait_once(card):
    assert _request(card, WORDS, threshold=0.95) == [0] * 8
    assert len(card.waits) == 1


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (lambda queries: queries.sum().item(), "meta tensors"),
        (lambda queries: queries[:, [0]], "a list of places"),
        (lambda queries: queries * queries.new_tensor([2.0]), "numbers of the host"),
        (lambda queries: queries * torch.tensor(2.0, device=queries.device), "numbers of the host"),
    ],
    ids=["item", "list", "new_tensor", "tensor"],
)
def test_a_hidden_wait_would_be_seen(card, monkeypatch, hidden, message):
    forward = Scoring.forward

    def waits(self, queries, prompt, valid):
        hidden(queries)
        return forward(self, queries, prompt, valid)

    monkeypatch.setattr(Scoring, "forward", waits)
    with pytest.raises(Exception, match=message):
        _request(card, WORDS)


def test_a_copy_from_pageable_memory_would_be_seen(card, monkeypatch):
    monkeypatch.setattr(predictor, "to_device", lambda tensor, device: tensor.to(device))
    with pytest.raises(AssertionError, match="a copy to the device that waits"):
        _request(card, WORDS)
