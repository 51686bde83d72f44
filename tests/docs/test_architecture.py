"""The page about the architecture names things that exist, and its drawing shows today's imports."""

from __future__ import annotations

import re
import runpy
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import s3seg

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
DRAW = runpy.run_path(str(ROOT / "docs" / "explanation" / "draw_architecture.py"))
PATHS = ("s3seg", "src", "tests", "docs", "examples", "supabase")


def paths_in(page: Path) -> list[str]:
    """What the page writes as code and has a folder of ours in front."""
    code = re.findall(r"`([^`\s]+)`", page.read_text(encoding="utf-8"))
    return sorted({word for word in code if word.partition("/")[0] in PATHS and "/" in word and "..." not in word})


def test_the_page_names_many_paths():
    assert len(paths_in(PAGE)) > 40


@pytest.mark.parametrize("page", [PAGE, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page):
    places = {path: ROOT / re.sub("^s3seg/", "src/s3seg/", path) for path in paths_in(page)}
    assert [path for path, place in places.items() if not place.exists()] == []


def test_every_room_has_its_line_in_the_table():
    entries = {path.name for path in Path(s3seg.__file__).parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    text = PAGE.read_text(encoding="utf-8")
    for name in entries - {"__pycache__", "__main__.py"}:
        assert re.search(rf"^\|.*`s3seg/{re.escape(name)}/?`", text, re.MULTILINE), f"{name} is not in the table"


def test_the_drawing_is_what_the_script_draws():
    assert DRAW["DRAWING"].read_text(encoding="utf-8") == DRAW["svg"](), (
        "draw it anew: python docs/explanation/draw_architecture.py"
    )


def test_an_arrow_is_left_out_where_a_chain_leads_to_the_same_room():
    pairs = {("a", "b"), ("b", "c"), ("a", "c"), ("a", "d")}
    assert DRAW["without_shortcuts"](pairs) == {("a", "b"), ("b", "c"), ("a", "d")}


def test_no_modules_import_each_other_in_a_circle_within_a_room_or_across():
    graph = grimp.build_graph("s3seg", exclude_type_checking_imports=True, cache_dir=None)
    public_names = {"s3seg"}  # imports what has a public name, when it is first used
    imports = {name: graph.find_modules_directly_imported_by(name) - public_names for name in graph.modules}
    TopologicalSorter({name: imports[name] for name in graph.modules - public_names}).prepare()  # raises CycleError
