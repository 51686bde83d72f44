"""The notebook runs, and shows what it gives."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "tutorial"
COMMITTED = json.loads((FOLDER / "first-masks-notebook.ipynb").read_text(encoding="utf-8"))


def shown(notebook: Any) -> list[str]:
    """The text that each cell gives, with what differs between machines (places, sizes, scores) replaced."""
    texts = []
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", ())
        given = ["".join(out.get("text") or out.get("data", {}).get("text/plain", "")) for out in outputs]
        texts.append(re.sub(r"\d+\.\d+|\d{2,}", "#", "".join(given)))  # a line may come in pieces
    return texts


def test_the_notebook_is_small_and_shows_pictures():
    kinds = [kind for cell in COMMITTED["cells"] for out in cell.get("outputs", ()) for kind in out.get("data", {})]
    assert sum(kind.startswith("image/") for kind in kinds) >= 4
    assert (FOLDER / "first-masks-notebook.ipynb").stat().st_size < 400_000
    assert all(out["output_type"] != "error" for cell in COMMITTED["cells"] for out in cell.get("outputs", ()))


@pytest.mark.slow
def test_a_new_kernel_gives_what_the_notebook_shows(monkeypatch):
    pytest.importorskip("nbclient", reason="run `make test-slow`, which installs it")
    pytest.importorskip("ipykernel", reason="run `make test-slow`, which installs it")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    executed = runpy.run_path(str(FOLDER / "run_notebook.py"))["executed"]()
    assert shown(executed) == shown(COMMITTED)
