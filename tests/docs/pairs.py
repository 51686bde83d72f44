"""Every pair of a picture of ours and a prompt that the documentation and the docstrings show."""

from __future__ import annotations

import ast
import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "examples" / "pictures"
NAMES = {path.stem for path in PICTURES.glob("*.json")}

_PICTURE = re.compile(rf"\b(?:{'|'.join(sorted(NAMES))})\.png\b")
_FOLDER = re.compile(r"^(?:examples/)?pictures/?(?:\*\.png)?$")
_PLACEHOLDER = re.compile(r"<[a-z_ ]+>")
_CALL_IN_SHELL = re.compile(r"""\.segment\("(?:[^"]*/)?(\w+)\.png", "([^"]+)"\)""")
_TAKES_A_PROMPT = {"segment", "segment_many", "submit"}


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """A prompt asked of a picture, and the file that shows it."""

    picture: str
    prompt: str
    file: str


def all_pairs() -> list[Pair]:
    """Every pair, sorted, each once for each file."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    found: set[Pair] = set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        python = {}
        for block in blocks:
            found.update(_pairs(block, page, python))
    for module in ROOT.glob("src/**/*.py"):
        for docstring in _docstrings(module):
            for block in re.findall(r"(?:^(?:    .*|)\n?)+", docstring + "\n", re.MULTILINE):
                found.update(_pairs(block, module, {}))
            found.update(_pairs(_unindented_code(docstring), module, {}))
    return sorted(found)


def _pairs(block: str, file: Path, known: dict[str, set[str]]) -> Iterator[Pair]:
    where = file.relative_to(ROOT).as_posix()
    for picture, prompt in [*in_python(block, known), *in_shell(block), *in_requests(block)]:
        yield Pair(picture, prompt, where)


def in_python(code: str, known: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Pairs of the calls in Python code; ``known`` maps variables to the pictures that they stand for."""
    try:
        tree = ast.parse(textwrap.dedent(code))
    except SyntaxError:
        return
    for node in ast.walk(tree):  # breadth first: statements of a level before what they contain
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = _pictures_of(node.value, known)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", None) not in _TAKES_A_PROMPT:
            continue
        for picture in sorted(_pictures_of(node.args[0], known)) if len(node.args) > 1 else []:
            for prompt in _strings(node.args[1]):
                yield picture, prompt


def in_shell(block: str) -> Iterator[tuple[str, str]]:
    """Pairs of the ``s3seg segment`` and ``python -c`` commands in a block of shell."""
    for line in block.splitlines():
        if "python -c" in line:
            yield from ((picture, prompt) for picture, prompt in _CALL_IN_SHELL.findall(line) if picture in NAMES)
    block = _PLACEHOLDER.sub("placeholder", block)
    for command in re.findall(r"s3seg segment (.+)", block.replace("\\\n", " ")):
        try:
            words = shlex.split(re.split(r"\s[|>]", command)[0].replace("$(PICTURES)", "pictures"), comments=True)
        except ValueError:
            continue
        prompts, names = [], []
        while words:
            word = words.pop(0)
            if word in ("-p", "--prompt") and words:
                prompts.append(words.pop(0))
            elif word.startswith("-") and word not in ("-r", "--json", "--jsonl", "--resume", "--quiet", "--debug"):
                words = words[1:]
            elif not word.startswith("-"):
                names.append(word)
        pictures = {Path(name).stem for name in names if _PICTURE.search(name)}
        if any(_FOLDER.match(name) for name in names):
            pictures |= NAMES
        others = [name for name in names if not _PICTURE.search(name) and not _FOLDER.match(name)]
        for picture in sorted(pictures):
            for prompt in [*prompts, *others[-1:]]:
                yield picture, prompt


def in_requests(block: str) -> Iterator[tuple[str, str]]:
    """Pairs of a block that uploads a picture with curl and sends a JSON body for it."""
    uploaded = re.findall(r"file=@(?:\S*/)?(\w+)\.png", block)
    for name in set(uploaded) & NAMES:
        for prompt in re.findall(r'"text_prompt":\s*"([^"]+)"', block):
            yield name, prompt
        for prompts in re.findall(r'"text_prompts":\s*(\[[^]]*\])', block):
            for prompt in json.loads(prompts):
                yield name, prompt


def _pictures_of(node: ast.AST, known: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            if _PICTURE.search(inner.value):
                found.add(Path(inner.value).stem)
            elif _FOLDER.match(inner.value):
                found |= NAMES
        elif isinstance(inner, ast.Name):
            found |= known.get(inner.id, set())
    return found


def _strings(node: ast.AST) -> list[str]:
    return [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str)]


def _docstrings(module: Path) -> Iterator[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and _PICTURE.search(docstring):
                yield docstring


def _unindented_code(docstring: str) -> str:
    """The lines of a docstring that are code without being indented, as in a module's."""
    return "\n".join(line for line in docstring.splitlines() if re.match(r"[a-z_, ]+ = |[a-z_.]+\(|import ", line))
