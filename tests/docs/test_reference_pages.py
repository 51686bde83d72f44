"""The pages of reference are what the code says."""

import re
import runpy
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import s3seg
from s3seg import errors
from s3seg.app import Settings, edge_app, gpu_app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", ["api", "errors", "metrics", "python", "settings"])
def test_a_page_is_what_the_code_says(name: str) -> None:
    page = runpy.run_path(str(REFERENCE / f"make_{name}.py"))["page"]
    assert (REFERENCE / f"{name}.md").read_text(encoding="utf-8") == page(), (
        f"make the page anew: python docs/reference/make_{name}.py > docs/reference/{name}.md"
    )


@pytest.mark.parametrize("name", sorted(set(s3seg.__all__) - {"__version__"}))
def test_the_page_of_python_has_every_public_name(name: str) -> None:
    headings = [line for line in (REFERENCE / "python.md").read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    assert any(line.rpartition(".")[2].strip("#` ") == name for line in headings)


def test_the_page_of_errors_has_every_class() -> None:
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    names = [name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)]
    assert [name for name in names if f"`{name}` | `{getattr(errors, name).code}`" not in text] == []


@pytest.mark.anyio
async def test_the_page_of_metrics_has_what_the_services_answer_and_nothing_else(tmp_path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, checkpoint="embedded", inference="memory")
    answered = set()
    for app in (edge_app(settings), gpu_app(settings, insecure_no_key=True)):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            families = text_string_to_metric_families((await client.get("/metrics")).text)
        named = {family.name + "_total" * (family.type == "counter") for family in families}
        answered |= {name for name in named if not name.endswith("_created")}  # when a counter began, beside each
    rows = re.findall(r"^\| `(\w+)` \|", (REFERENCE / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rows) == answered
    assert len(rows) == len(set(rows))
