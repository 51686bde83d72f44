"""``--help`` in sections, as plain text.

Typer's own sections need rich, whose import takes longer than the rest of ``--help``.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand


class CommandWithSections(TyperCommand):
    """A command whose ``--help`` groups options by their ``rich_help_panel``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line; arguments appear as their metavars."""
        arguments = [p.metavar or str(p.name) for p in self.params if isinstance(p, TyperArgument)]
        return ["[OPTIONS]", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options by section, in the order of their declaration."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                name, text = record
                section = getattr(parameter, "rich_help_panel", None) or "Options"
                if isinstance(parameter, TyperArgument):
                    name, section = parameter.metavar or name, "Arguments"
                sections.setdefault(section, []).append((name, text))
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)
