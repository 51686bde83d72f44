"""``s3seg doctor``: what this machine has, and what it lacks."""

from __future__ import annotations

import typer

from s3seg.commands.endings import ERROR

_SIGNS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "problem": ("✗", "bold red")}


def doctor() -> None:
    """Examine this machine, and say what is missing.

    Device, versions, checkpoints, and the command that gets what there is not.
    Exits with 1 if there is a problem that keeps s3seg from working.
    """
    from rich.table import Table
    from rich.text import Text

    from s3seg import doctor as examination
    from s3seg.commands.terminal import Terminal

    terminal = Terminal()
    with terminal.progress(1, "asking torch what it sees"):
        findings = examination.examine()
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
    terminal.note("s3seg can segment on this machine")
