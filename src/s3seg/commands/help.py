"""Help in sections, as plain text: typer's own panels cost more to import than all the rest of ``--help``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand


class CommandWithSections(TyperCommand):
    """A command whose ``--help`` lists options under their ``rich_help_panel``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line, with the arguments spelt as their metavars are."""
        arguments = [p.metavar or str(p.name) for p in self.params if isinstance(p, TyperArgument)]
        return ["[OPTIONS]", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, section by section, in the order in which they were declared."""
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
