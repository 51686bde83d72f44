"""The documentation as a site: ``make docs`` builds it, with every warning an error (see ADR 104).

The pages are plain Markdown that is read on a forge as well, so the site takes them as they are. What it adds is done
here: the contents at the side, from the links of ``docs/README.md``, and what becomes of links to folders.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

import s3seg

ROOT = Path(__file__).parents[2]
INDEX = "docs/README"
DECISIONS = "docs/adr/README"

project = "s3seg"
author = copyright = "the s3seg authors"
version = release = s3seg.__version__
extensions = ["myst_nb"]
root_doc = INDEX
include_patterns = ["*.md", "docs/**.md", "docs/**.ipynb", "examples/**.md", "benchmarks/**.md"]  # ** crosses folders
exclude_patterns = [".*", ".*/**", "out/**", "**/node_modules/**"]
html_theme = "furo"
html_title = f"s3seg {release}"
html_copy_source = False
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 5
nb_execution_mode = "off"  # its outputs are in the notebook, and a test runs it

_LINK = re.compile(r"\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)?)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def setup(app: Sphinx) -> None:
    """Connect what this site adds to the pages."""
    app.connect("source-read", _adapt)
    app.connect("build-finished", _write_entrance)


def _adapt(app: Sphinx, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md":
        source[0] = _LINK.sub(lambda link: _without_folders(link, page), source[0])
    if name == INDEX:
        source[0] += _contents(source[0], page)
    if name == DECISIONS:
        source[0] += "\n\n```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"


def _without_folders(link: re.Match[str], page: Path) -> str:
    """A link to a folder leads to its README; without one, only its text is left."""
    text, target, _ = link.groups()
    if not (page.parent / target).is_dir():
        return link[0]
    return f"[{text}]({target.rstrip('/')}/README.md)" if (page.parent / target / "README.md").exists() else text


def _contents(index: str, page: Path) -> str:
    """A table of contents for each section of the index; Sphinx reports a page that is in none."""
    tables = []
    for section in index.split("\n## ")[1:]:
        title, _, items = section.partition("\n")
        targets = [target for _, target, _ in _LINK.findall(items)]
        entries = "\n".join(os.path.relpath(page.parent / target, page.parent) for target in targets)
        tables.append(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n")
    return "\n\n" + "\n".join(tables)


def _write_entrance(app: Sphinx, failed: Exception | None) -> None:
    """The address of the site itself leads to the index."""
    if failed is None and app.builder.format == "html":
        there = f"{INDEX}.html"
        entrance = f'<!doctype html><meta http-equiv="refresh" content="0; url={there}"><a href="{there}">s3seg</a>'
        (Path(app.outdir) / "index.html").write_text(entrance, encoding="utf-8")
