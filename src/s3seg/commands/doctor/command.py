"""``s3seg doctor``: show what this machine has, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.errors import ERROR

if TYPE_CHECKING:
    from s3seg.commands.doctor.machine import Finding

_SIGNS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "bold red")}


def doctor(
    services: Annotated[
        bool, typer.Option("--services", help="Check the services instead: connect to each adapter in the settings.")
    ] = False,
) -> None:
    """Check this machine, and say what is missing.

    Shows the device, versions and checkpoints, and the command that fixes each problem.
    Exits with 1 if s3seg cannot work here.
    """
    from rich.table import Table
    from rich.text import Text

    from s3seg.commands.doctor import machine
    from s3seg.commands.terminal import Terminal

    terminal = Terminal()
    with terminal.progress(1, "checking the services" if services else "checking this machine"):
        findings = _check_services() if services else machine.examine()
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.status]
        description = Text(finding.value)
        if finding.advice:
            description.append(f"\n{finding.advice}", style=style)
        table.add_row(Text(sign, style), Text(finding.topic, "bold"), description)
    terminal.show(table)
    problems = sum(finding.status == "problem" for finding in findings)
    if problems:
        terminal.warn(
            f"{problems} of {len(findings)} checks failed; s3seg cannot work until they pass", label="problem"
        )
        raise typer.Exit(ERROR)
    terminal.note("the services can run" if services else "s3seg can segment on this machine")


def _check_services() -> list[Finding]:
    from s3seg.commands.doctor.services import examine_services
    from s3seg.commands.parts import run_with_parts

    return run_with_parts(examine_services)
