"""Execute the notebook and write its outputs: ``python docs/tutorial/run_notebook.py`` (needs the group ``docs``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "first-masks-notebook.ipynb"


def executed() -> Any:
    """Return the notebook with the outputs of a new kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        for output in cell.get("outputs", ()):
            _keep_one_picture(output.get("data", {}))
    return notebook


def _keep_one_picture(data: dict[str, Any]) -> None:
    """Keep a picture once, in its smallest form; a table of pandas has no picture and keeps its HTML."""
    if "image/jpeg" in data:
        data.pop("image/png", None)
    if "image/png" in data or "image/jpeg" in data:
        data.pop("text/html", None)


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
