from __future__ import annotations

from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent.parent / "data" / "golden"


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN
