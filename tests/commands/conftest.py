from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from tests.commands.running import Command, GetPicture, command

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"


@pytest.fixture(autouse=True)
def _embedded_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("S3SEG_DEBUG", "FORCE_COLOR", "NO_COLOR", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def _load_once():
    """Loads a checkpoint the first time it is asked for; a command by itself loads it each time that it runs."""
    from s3seg.sam3.predictor import Predictor

    return lru_cache(maxsize=4)(Predictor.from_path)


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch: pytest.MonkeyPatch, _load_once) -> None:
    monkeypatch.setattr("s3seg.sam3.predictor.Predictor.from_path", _load_once)


@pytest.fixture
def s3seg() -> Command:
    """Run a command in this process."""
    return command


@pytest.fixture
def picture() -> GetPicture:
    """A drawn picture by its name: "street", "shapes" ..."""
    return lambda name: PICTURES / f"{name}.png"
