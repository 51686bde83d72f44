"""The pages of reference are what settings and docstrings say."""

import runpy
from pathlib import Path

import pytest

import s3seg

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["settings", "python"])
def test_a_page_is_what_the_code_says(name: str) -> None:
    page = runpy.run_path(str(REFERENCE / f"make_{name}.py"))["page"]
    assert (REFERENCE / f"{name}.md").read_text(encoding="utf-8") == page(), (
        f"make the page anew: python docs/reference/make_{name}.py > docs/reference/{name}.md"
    )


@pytest.mark.parametrize("name", sorted(set(s3seg.__all__) - {"__version__"}))
def test_the_page_of_python_has_every_public_name(name: str) -> None:
    headings = [line for line in (REFERENCE / "python.md").read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    assert any(line.rpartition(".")[2].strip("#` ") == name for line in headings)
