from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from s3seg.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, subcommand in getattr(command, "commands", {}).items():
        yield from _commands(subcommand, f"{name} {child}")


COMMANDS = dict(_commands(typer.main.get_command(app), "s3seg"))


def test_there_are_commands_to_describe() -> None:
    assert {"s3seg segment", "s3seg models pull", "s3seg doctor"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_describes_every_command_and_option(name: str) -> None:
    _, _, after = PAGE.read_text(encoding="utf-8").partition(f"\n## {name}\n")
    section = " ".join(after.partition("\n## ")[0].split())
    assert section, f"no section {name!r}; regenerate the page with docs/reference/make_cli.py"
    command = COMMANDS[name]
    assert " ".join(command.help.split("\n\n")[0].split()) in section
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]:
            assert option in section
        assert " ".join((parameter.help or "").split()) in section
