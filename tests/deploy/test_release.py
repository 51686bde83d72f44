"""What the scripts of a release decide: versions to try."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGING)
    for name in ("build", "check"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


def test_the_lowest_versions_are_constraints_without_extras(script):
    lines = script("check").limits("lowest", [])
    assert "pyjwt==2.11" in lines
    assert "torch==2.6" in lines
    assert not [line for line in lines if set(line) & set("[]<>")]


def test_a_pinned_package_has_the_version_of_the_constraints_and_no_other(script):
    [pinned] = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    check = script("check")
    assert check.limits("newest", ["torch"]) == [pinned]
    assert [line for line in check.limits("lowest", ["torch"]) if line.startswith("torch")] == [pinned]


def test_a_pinned_package_that_the_constraints_do_not_have_is_an_error(script):
    with pytest.raises(SystemExit, match="tensorflow"):
        script("check").limits("newest", ["tensorflow"])
