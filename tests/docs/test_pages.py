"""Every page is followed from top to bottom, and what is not run is listed where readers see it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from tests.docs.belongings import provide, write_video
from tests.docs.blocks import (
    NO_CODE,
    NOT_RUN,
    PARSED,
    SHELL,
    Block,
    blocks_not_run,
    blocks_of,
    commands_of,
    pages,
    prefixes_not_run,
)
from tests.docs.reader import Reader
from tests.helpers.clickable import write_clickable_checkpoint

BLOCKS = [block for page in pages() for block in blocks_of(page)]
RUN_BY_OTHER_TESTS = {"docs/how-to/write-an-adapter.md": "tests/examples/test_adapter.py"}
_RUNNABLE = {*SHELL, "python"}
FOLLOWED = sorted({block.page for block in BLOCKS if block.language in _RUNNABLE} - RUN_BY_OTHER_TESTS.keys())


def is_run(block: Block) -> bool:
    """Whether a block has something to run, and is not listed."""
    if block in blocks_not_run() or block.language not in _RUNNABLE:
        return False
    return block.language == "python" or any(commands_of(block))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_run_or_parsed_or_listed(block):
    known = _RUNNABLE | PARSED | NO_CODE
    assert block.language in known, f"{block}: the tests do not know how to run {block.language!r}"
    if block.language == "json":
        json.loads(block.code)
    elif block.language == "toml":
        tomllib.loads(block.code)
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.code))
    elif block.language == "xml":
        ElementTree.fromstring(block.code)
    elif block.language == "python":
        compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_list_of_what_is_not_run_is_not_longer_than_needed():
    assert all(reason for reason in blocks_not_run().values())
    code = [line.removeprefix("$ ").strip() for block in BLOCKS for line in block.code.splitlines()]
    unused = [prefix for prefix in prefixes_not_run() if not any(line.startswith(prefix) for line in code)]
    assert unused == [], f"no command begins with these any more: take them out of {NOT_RUN}"


def test_most_blocks_are_run():
    runnable = [block for block in BLOCKS if block.language in _RUNNABLE]
    assert len(blocks_not_run()) < 0.2 * len(runnable)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    for name in ("S3SEG_CHECKPOINT", "S3SEG_URL", "S3SEG_TOKEN", "API_SECRET_KEY", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    reader = Reader(tmp_path, monkeypatch)
    provide(tmp_path)
    yield reader
    reader.close()


def prepare(page: str, folder: Path) -> None:
    """What a page says that its readers have already."""
    if page == "docs/how-to/clicks.md":
        snapshot = folder / "home/.cache/huggingface/hub/models--facebook--sam3/snapshots" / ("0" * 40)
        snapshot.parent.mkdir(parents=True)
        write_clickable_checkpoint(snapshot)
    elif page == "docs/how-to/results.md":
        write_video(folder / "street.mp4")
    elif page == "docs/how-to/bulk.md":
        pytest.importorskip("ray", reason="run `make test-slow`, which installs it")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or not all(map(shutil.which, ("bash", "curl", "jq"))), reason="bash, curl, jq")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of libraries that pages use
@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed_from_top_to_bottom(page, reader, tmp_path):
    prepare(page, tmp_path)
    for block in blocks_of(page):
        if is_run(block):
            reader.follow(block)
