"""Make cli.md from the commands themselves: ``python docs/reference/make_cli.py > docs/reference/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from s3seg.cli import app


def page() -> str:
    """The help of every command, a section each."""
    root: Any = typer.main.get_command(app)
    sections = "\n".join(_sections(root, "s3seg", parent=None))
    about = "What `--help` says of every command; made by `docs/reference/make_cli.py`."
    return f"# The command line\n\n{about}\n\n{sections}"


def _sections(command: Any, name: str, *, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    context.help_option_names = ["-h", "--help"]
    title = context.command_path
    yield f"## {title}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    for child in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _sections(command.get_command(context, child), child, parent=context)


if __name__ == "__main__":
    print(page(), end="")
