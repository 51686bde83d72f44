"""The tables of ``s3seg bulk``: a name and a value on each line."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from s3seg.commands.escaping import one_line


def table(*rows: tuple[str, str]) -> Table:
    """Return a table of names and values."""
    made = Table(box=None, show_header=False, padding=(0, 1))
    made.add_column(style="dim")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, Text(one_line(value)))
    return made
