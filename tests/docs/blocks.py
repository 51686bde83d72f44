"""The code blocks of the documentation, and which of them its own page says are not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_RUN = ROOT / "docs" / "explanation" / "code-not-run.md"
SHELL = frozenset({"sh", "bash", "console"})
PARSED = frozenset({"json", "toml", "xml", "yaml"})
NO_CODE = frozenset({"", "text"})  # output, formulas and diagrams
_GENERATED = {f"docs/reference/{name}.md" for name in ("api", "cli", "errors", "metrics", "python", "settings")}
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: The page, as a path from the root of the repository.
        line: The line of the page on which the code begins, from 1.
        language: What follows the fence.
        code: The code, without the indentation of a list that it is in.
        file: The name under which the sentence before it says to save it, or None.
    """

    page: str
    line: int
    language: str
    code: str
    file: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page with code that people wrote, as a path from the root of the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    found = [path for path in found if not {"node_modules", ".venv"} & set(path.parts)]
    return sorted({path.relative_to(ROOT).as_posix() for path in found} - _GENERATED)


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """The blocks of a page, from top to bottom."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        indent = fence["indent"]
        code = re.sub(rf"^{indent}", "", fence["code"], flags=re.MULTILINE)
        before = text[: fence.start()].rstrip().rpartition("\n\n")[2]
        saved = re.search(r"[Ss]ave this\s+as\s+`([\w.]+\.py)`", before)
        line = text.count("\n", 0, fence.start("code")) + 1
        found.append(Block(page, line, fence["language"], code, saved and saved[1]))
    return tuple(found)


@cache
def prefixes_not_run() -> tuple[str, ...]:
    """How the commands begin that are not run on any page."""
    rows = _rows("## Commands")
    return tuple(prefix for begins, *_ in rows for prefix in re.findall(r"`([^`]+)`", begins))


@cache
def blocks_not_run() -> dict[Block, str]:
    """The blocks that the list names, each with its reason.

    Raises:
        AssertionError: A row names no block, or more than one.
    """
    named = {}
    for link, begins, reason in _rows("## Blocks"):
        target = re.search(r"\]\(([^)]+)\)", link)
        assert target is not None, f"no page in the row of {begins}"
        page = (NOT_RUN.parent / target[1]).resolve().relative_to(ROOT).as_posix()
        first = begins.strip().strip("`")
        found = [block for block in blocks_of(page) if any(line.startswith(first) for line in block.code.splitlines())]
        assert len(found) == 1, f"{len(found)} blocks of {page} have a line that begins with {first!r}"
        named[found[0]] = reason
    return named


def commands_of(block: Block) -> Iterator[str]:
    """The commands of a block of shell that are run, each with the lines that continue it."""
    lines = block.code.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    command = ""
    for line in lines:
        command += line
        if _is_complete(command):
            if command.strip() and not command.strip().startswith("#") and not _is_left_out(command):
                yield command
            command = ""
        else:
            command += "\n"
    assert not command.strip(), f"{block} ends within a command: {command}"


def _is_left_out(command: str) -> bool:
    return any(re.match(rf"\s*{re.escape(prefix)}(?!(?<=\w)\w)", command) for prefix in prefixes_not_run())


def _is_complete(command: str) -> bool:
    if command.rstrip(" ").endswith("\\"):
        return False
    try:
        shlex.split(command, comments=True)
    except ValueError:  # a quotation that goes on
        return False
    return True


def _rows(heading: str) -> list[tuple[str, str, str]]:
    _, _, section = NOT_RUN.read_text(encoding="utf-8").partition(heading)
    section = section.partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in section.splitlines() if row[:1] == "|"]
    return [tuple([*row, ""][:3]) for row in rows[2:]]  # type: ignore[misc]
