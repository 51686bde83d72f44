"""Following a page fails where a reader would fail."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.docs.blocks import Block, blocks_of, commands_of
from tests.docs.reader import Reader

pytestmark = pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def reader(tmp_path, monkeypatch):
    reader = Reader(tmp_path, monkeypatch)
    yield reader
    reader.close()


def block(code: str, language: str = "sh", file: str | None = None) -> Block:
    return Block("page.md", 1, language, code, file)


def test_variables_folders_and_names_stay_from_block_to_block(reader, tmp_path):
    reader.follow(block('mkdir sub && cd sub\nWHO="Ann B"\nexport PLACE=here\n'))
    reader.follow(block('test "$WHO $PLACE" = "Ann B here"\necho $WHO > who.txt\n'))
    assert (tmp_path / "sub" / "who.txt").read_text() == "Ann B\n"
    reader.follow(block("x = 6\n", "python"))
    reader.follow(block("import asyncio\n\nawait asyncio.sleep(0)\ny = 7 * x\n", "python"))
    assert reader.names["y"] == 42
    assert os.environ["PLACE"] == "here"


@pytest.mark.parametrize(
    "code", ["false\ntrue\n", "cat none.txt | wc -l\n", "echo $UNSET_BY_ALL\n", "no-such-command\n"]
)
def test_a_command_that_fails_is_an_error(reader, code):
    with pytest.raises(AssertionError, match="exit code"):
        reader.follow(block(code))


def test_a_saved_program_that_fails_is_an_error(reader):
    reader.follow(block("print(1)\n", "python", "fine.py"))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        reader.follow(block("1 / 0\n", "python", "wrong.py"))


def test_a_service_that_does_not_start_is_an_error(reader):
    with pytest.raises(AssertionError, match="this service needs a key"):
        reader.follow(block("s3seg serve gpu --port 8001\n"))


def test_addresses_of_pages_are_those_of_this_run(reader, tmp_path):
    (tmp_path / "hello.txt").write_text("hello")
    reader.follow(block("curl -sf https://example.org/hello.txt > got.txt\necho localhost:8001 >> got.txt\n"))
    got = (tmp_path / "got.txt").read_text()
    assert got.startswith("hello")
    assert "8001" not in got


def test_commands_keep_the_lines_that_continue_them():
    code = "curl a \\\n  -b\n# a remark\npip install x\necho '1\n2'\n"
    assert list(commands_of(block(code))) == ["curl a \\\n  -b", "echo '1\n2'"]
    shown = block("$ s3seg doctor\noutput\n", "console")
    assert list(commands_of(shown)) == ["s3seg doctor"]


def test_blocks_are_found_with_their_files_and_in_lists():
    files = {one.file for one in blocks_of("docs/how-to/agents-mcp.md")}
    assert files == {None, "try_mcp.py"}
    assert any(one.code == "s3seg models pull sam3\n" for one in blocks_of("docs/how-to/full-sam3.md"))
