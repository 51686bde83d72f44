"""A mirror of the hub on loopback, with the embedded checkpoint as a small model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3seg import checkpoints
from s3seg.checkpoints import _pull
from tests.helpers.loopback import Mirror

WEIGHTS = "model.safetensors"


@pytest.fixture
def online_hub(own_hub_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub can be asked, from an empty cache, and is asked again at once after an error."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at its import
    monkeypatch.setattr(_pull, "_WAITS", (0.0, 0.0))


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    folder = checkpoints.resolve("embedded").path
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    unneeded = {"README.md": b"# card", "pytorch_model.bin": b"other weights", "sam3.pt": b"the other layout"}
    with Mirror({**files, **unneeded}).running() as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror.endpoint)
        yield mirror


@pytest.fixture
def lite_text(mirror: Mirror) -> Mirror:
    """A mirror of a repository without a gate."""
    mirror.repo_id, mirror.gated, mirror.card = "vil-uob/sam3-litetext-s0", False, {"license": "apache-2.0"}
    return mirror
