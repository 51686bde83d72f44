"""``s3seg doctor``: what this machine has, and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.endings import ERROR

if TYPE_CHECKING:
    from s3seg.commands.examine import Finding

_SIGNS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "bold red")}


def doctor(
    services: Annotated[
        bool, typer.Option("--services", help="Connect to each part that the settings choose for the services.")
    ] = False,
) -> None:
    """Examine this machine, and say what is missing.

    Device, versions, checkpoints, and the command that gets what there is not.
    Exits with 1 if there is a problem that keeps s3seg from working.
    """
    from rich.table import Table
    from rich.text import Text

    from s3seg.commands import examine as examination
    from s3seg.commands.terminal import Terminal

    terminal = Terminal()
    with terminal.progress(1, "asking torch what it sees"):
        findings = _examine_services() if services else examination.examine()
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.status]
        said = Text(finding.value)
        if finding.advice:
            said.append(f"\n{finding.advice}", style=style)
        table.add_row(Text(sign, style), Text(finding.topic, "bold"), said)
    terminal.show(table)
    problems = sum(finding.status == "problem" for finding in findings)
    if problems:
        terminal.warn(f"{problems} of {len(findings)} findings keep s3seg from working", label="problem")
        raise typer.Exit(ERROR)
    terminal.note("the services can run" if services else "s3seg can segment on this machine")


def _examine_services() -> list[Finding]:
    import asyncio

    from s3seg.app import Parts
    from s3seg.app.settings import Settings
    from s3seg.commands.services import examine_services

    async def examine() -> list[Finding]:
        parts = Parts(Settings())
        try:
            return await examine_services(parts)
        finally:
            await parts.aclose()

    return asyncio.run(examine())
