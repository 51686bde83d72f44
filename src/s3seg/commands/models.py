"""``s3seg models``: list, download and verify checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.errors import ERROR
from s3seg.commands.help import CommandWithSections

if TYPE_CHECKING:
    from s3seg.commands.terminal import Terminal

app = typer.Typer(help="List, download and verify checkpoints.", no_args_is_help=True, rich_markup_mode=None)

_NAME_HERE = typer.Argument(
    metavar="[NAME|PATH|REPO]",
    help='"embedded", "sam3", a folder, a weights file or a repo id.',
    show_default="the default checkpoint",
)


@app.command("list", cls=CommandWithSections)
def list_(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the checkpoints that can be used.

    Shows which are on this machine, where, and which is the default.
    """
    from s3seg import checkpoints
    from s3seg.commands.terminal import Terminal
    from s3seg.errors import CheckpointError

    terminal = Terminal()
    items = checkpoints.inventory()
    try:
        default = checkpoints.resolve()
    except CheckpointError as err:  # S3SEG_CHECKPOINT names one that is missing: warn, and still list the others
        terminal.warn(str(err))
        default = None
    if json:
        import json as json_

        rows = [
            {
                "name": item.name,
                "summary": item.summary,
                "here": item.checkpoint is not None,
                "default": item.checkpoint is not None and item.checkpoint == default,
                "version": item.checkpoint.version if item.checkpoint else None,
                "path": str(item.checkpoint.path) if item.checkpoint else None,
                "bytes": item.size_bytes,
            }
            for item in items
        ]
        terminal.write(json_.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        return

    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading in ("", "checkpoint", "here", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "description", justify="left")
    for item in items:
        here = item.checkpoint is not None
        state = Text(_size(item.size_bytes), "green") if here else Text("no", "dim")
        description = Text(item.summary)
        if here and item.checkpoint:
            description.append(f"\n{item.checkpoint.path}", "dim")
        elif item.size_bytes:
            state = Text(f"partial, {_size(item.size_bytes)}", "yellow")
        if not here:
            description.append(f"\ndownload it with: s3seg models pull {item.name}", "dim")
        mark = Text("*", "bold green") if here and item.checkpoint == default else Text("")
        table.add_row(mark, Text(item.name, "bold"), state, description)
    if default and default not in [item.checkpoint for item in items]:
        place = Text(f"{default.path}", "dim")
        table.add_row(Text("*", "bold green"), Text(default.name, "bold"), Text(_size(default.size_bytes)), place)
    terminal.show(table)
    terminal.note("* default")


@app.command(cls=CommandWithSections)
def pull(
    name: Annotated[
        str, typer.Argument(metavar="[NAME|REPO]", help='"sam3", or a repo id such as "org/repo".')
    ] = "sam3",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Download a checkpoint.

    Resumes an interrupted download. Uses HF_HOME, HF_TOKEN (or `hf auth login`),
    HF_ENDPOINT (a mirror) and HF_HUB_OFFLINE.
    """
    from s3seg import checkpoints
    from s3seg.commands.terminal import Terminal

    terminal = Terminal(quiet=quiet)
    with _bytes_bar(terminal) as progress:
        checkpoint = checkpoints.pull(name, revision=revision, progress=progress)
    terminal.note(f"{checkpoint.version} ({_size(checkpoint.size_bytes)}) is in:")
    terminal.write(f"{checkpoint.path}\n")


@app.command(cls=CommandWithSections)
def verify(name: Annotated[str | None, _NAME_HERE] = None) -> None:
    """Check the files of a checkpoint.

    Compares them with the hub's checksums where these are known, which is marked
    with a tick, and otherwise checks only their format. Exits with 1 if a check fails.
    """
    from rich.table import Table
    from rich.text import Text

    from s3seg import checkpoints
    from s3seg.commands.terminal import Terminal

    terminal = Terminal()
    with _bytes_bar(terminal) as progress:
        verification = checkpoints.verify(name, progress=progress)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for column in range(4):
        table.add_column(justify="right" if column == 2 else "left", overflow="fold")
    for file in verification.files:
        if file.problem:
            sign, result = Text("✗", "bold red"), Text(file.problem, "red")
        elif file.is_verified:
            sign, result = Text("✓", "green"), Text(f"verified: {', '.join(file.checked)}", "dim")
        else:  # no tick: its contents were not compared with anything
            checked = f"{', '.join(file.checked)} valid; " if file.checked else ""
            sign, result = Text("-", "yellow"), Text(f"{checked}contents not verified, no checksum is known", "dim")
        table.add_row(sign, Text(file.path.name, "bold"), _size(file.size_bytes), result)
    terminal.show(table)
    terminal.note(f"{verification.checkpoint.version} in {verification.checkpoint.path}")
    if not verification.ok:
        raise typer.Exit(ERROR)


@app.command(cls=CommandWithSections)
def path(name: Annotated[str | None, _NAME_HERE] = None) -> None:
    """Print the path of a checkpoint."""
    from s3seg import checkpoints

    typer.echo(checkpoints.resolve(name).path)


@contextlib.contextmanager
def _bytes_bar(terminal: Terminal) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show a progress bar for each file. Yields its callback, or None if stderr is not a terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = terminal.progress_console
    if console is None:
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}", markup=False), *columns, console=console, redirect_stdout=False
    ) as bars:
        tasks = {}

        def progress(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done)

        yield progress


def _size(count: int) -> str:
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
