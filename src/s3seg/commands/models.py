"""``s3seg models``: list, download and verify checkpoints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.errors import ERROR
from s3seg.commands.help import CommandWithSections

if TYPE_CHECKING:
    from s3seg.checkpoints import Checkpoint, InventoryItem, Offer
    from s3seg.commands.terminal import Terminal

app = typer.Typer(help="List, download and verify checkpoints.", no_args_is_help=True, rich_markup_mode=None)

_LARGE_FILE = 50_000_000  # bytes

_NAME_HERE = typer.Argument(
    metavar="[NAME|PATH|REPO]",
    help='"embedded", "litetext", "sam3", a folder, a weights file or a repo id.',
    show_default="the default checkpoint",
)


@app.command("list", cls=CommandWithSections)
def list_(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the checkpoints that can be used.

    Shows which are on this machine and where, which is the default, and for each its
    size, its licence and whether it needs an account.
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
                "size": item.size or None,
                "licence": item.licence,
                "account_needed": item.gated,
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
        description.append(f"\n{_facts(item)}", "dim")
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


def _facts(item: InventoryItem) -> str:
    account = {True: "needs an account that has accepted the licence", False: "no account needed", None: ""}
    size = "" if item.checkpoint else item.size  # what is here has its own size in another column
    return "; ".join(fact for fact in (size, item.licence, account[item.gated]) if fact)


@app.command(cls=CommandWithSections)
def pull(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME|REPO]", help='"litetext", "sam3", "sam3.1", or a repo id such as "org/repo".'),
    ] = "litetext",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
    accept_license: Annotated[
        bool,
        typer.Option(
            "--accept-license", envvar="S3SEG_ACCEPT_LICENSE", help="Accept the licences without being asked."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Download a checkpoint.

    Shows its size, source and licences first, and asks once whether you accept them.
    Resumes an interrupted download. Uses HF_HOME, HF_TOKEN (or `hf auth login`),
    HF_ENDPOINT (a mirror) and HF_HUB_OFFLINE. "litetext" needs no account.
    """
    from s3seg.commands.terminal import Terminal

    terminal = Terminal(quiet=quiet)
    checkpoint = download(name, terminal, accept_license=accept_license, revision=revision)
    terminal.note(f"{checkpoint.version} ({_size(checkpoint.size_bytes)}) is in:")
    terminal.write(f"{checkpoint.path}\n")


def download(name: str, terminal: Terminal, *, accept_license: bool, revision: str | None = None) -> Checkpoint:
    """Download a checkpoint with a progress bar, after its licences were accepted.

    Raises:
        CheckpointError: It cannot be downloaded, or its licences were not accepted.
    """
    from s3seg import checkpoints

    with _bytes_bar(terminal) as progress:
        return checkpoints.pull(
            name,
            accept_license=accept_license,
            confirm=lambda offer: _confirm(offer, terminal),
            revision=revision,
            progress=progress,
        )


def _confirm(offer: Offer, terminal: Terminal) -> bool:
    """Show what is about to be downloaded, and ask whether its licences are accepted unless they already are."""
    can_ask = not offer.accepted and _can_ask()
    show = terminal.warn if can_ask else terminal.note  # a question is not left out by --quiet
    partly = "" if offer.download_bytes == offer.size_bytes else f", {_size(offer.download_bytes)} still to download"
    account = "an account with access is needed" if offer.gated else "no account needed"
    show(f"{_size(offer.size_bytes)}{partly}", label="size")
    show(f"{offer.source} ({account})", label="source")
    for licence in offer.licences:
        show(f"{licence.name}, for {licence.covers}: {licence.url}", label="licence")
    show(
        "s3seg was tested with random weights in this layout, not with these files; "
        f"try them after the download with: s3seg models verify {offer.name} --try",
        label="not tried",
    )
    return offer.accepted or (can_ask and typer.confirm("Do you accept these licences?", err=True))


def _can_ask() -> bool:
    return sys.stdin.isatty()


@app.command(cls=CommandWithSections)
def verify(
    name: Annotated[str | None, _NAME_HERE] = None,
    try_: Annotated[
        bool, typer.Option("--try", help="Also load the weights and segment one drawn picture with them.")
    ] = False,
) -> None:
    """Check the files of a checkpoint.

    Compares them with the hub's checksums where these are known, which is marked
    with a tick, and otherwise checks only their format. Exits with 1 if a check fails,
    or if --try does not find what is drawn.
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
    if try_:
        _try(verification.checkpoint, terminal)


def _try(checkpoint: Checkpoint, terminal: Terminal) -> None:
    """Segment one drawn picture and print what was found, beside what is drawn.

    Raises:
        typer.Exit: The drawn thing was not found.
    """
    from s3seg.commands.trial import PROMPT, run_trial

    with terminal.progress(1, "loading the weights and segmenting one picture"):
        trial = run_trial(checkpoint)
    model = trial.model
    scores = ", ".join(f"{score:.2f}" for score in trial.scores) or "none"
    terminal.write(
        f"prompt           {PROMPT}, drawn once\n"
        f"found            {len(trial.scores)} (scores: {scores})\n"
        f"overlap          {trial.overlap:.3f} of 1 (mask IoU of the best with what is drawn)\n"
        f"presence         {trial.presence:.2f}\n"
        f"model            {model.name} {model.version}, {trial.parameters / 1e6:,.0f} M parameters\n"
        f"ran on           {model.device} in {model.dtype}\n"
        f"time             {trial.load_seconds:.1f} s to load, {trial.segment_seconds:.1f} s to segment\n"
    )
    if not trial.is_found:
        terminal.warn(
            f"the {PROMPT} was not found where it is drawn, which SAM 3 should do; "
            "please report it with the lines above",
            label="error",
        )
        raise typer.Exit(ERROR)


@app.command(cls=CommandWithSections)
def path(name: Annotated[str | None, _NAME_HERE] = None) -> None:
    """Print the path of a checkpoint."""
    from s3seg import checkpoints

    typer.echo(checkpoints.resolve(name).path)


@contextlib.contextmanager
def _bytes_bar(terminal: Terminal) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Show a progress bar for each file; a line for each tenth of a large one where stderr is no terminal, as in a log.

    Yields the callback, or None if nothing is to be shown.
    """
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
        yield None if terminal.quiet else _TenthsOfFiles(terminal)
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Progress(TextColumn("{task.description}", markup=False), *columns, console=console, redirect_stdout=False)
    tasks = {}

    def progress(file: str, done: int, total: int | None) -> None:
        bars.start()  # only now: a question may be asked before the first byte
        if file not in tasks:
            tasks[file] = bars.add_task(file, total=total)
        bars.update(tasks[file], completed=done)

    try:
        yield progress
    finally:
        bars.stop()


class _TenthsOfFiles:
    """Notes each tenth of a large file that has been downloaded or checked."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._tenths: dict[str, int] = {}

    def __call__(self, file: str, done: int, total: int | None) -> None:
        if total is None or total < _LARGE_FILE:
            return
        tenths = done * 10 // total
        if tenths > self._tenths.get(file, 0):
            self._tenths[file] = tenths
            self._terminal.note(f"{file}: {tenths * 10} % of {_size(total)}")


def _size(count: int) -> str:
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
