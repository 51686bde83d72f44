"""Help in sections, as plain text: typer's own panels cost more to import than all the rest of ``--help``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class CommandWithSections(TyperCommand):
    """A command of the command line; its ``--help`` lists options under their ``rich_help_panel``."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line, with arguments spelt as their metavars are."""
        arguments = [
            p.metavar or p.human_readable_name for p in self.params if p.param_type_name == "argument"
        ]
        return ["[OPTIONS]", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, section by section, in the order in which they were declared."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_argument = parameter.param_type_name == "argument"
                if is_argument and parameter.metavar:
                    record = (parameter.metavar, record[1])
                name = getattr(parameter, "rich_help_panel", None) or (
                    "Arguments" if is_argument else "Options"
                )
                sections.setdefault(name, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)
