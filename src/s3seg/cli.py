"""The ``s3seg`` command line: registers the commands of ``s3seg.commands``.

To add a command, add a line here: ``app.command("name")(function)``, or ``app.add_typer(app, name="name")``.
"""

from __future__ import annotations

import gc
import io
import sys
from typing import Annotated

import typer

from s3seg import __version__
from s3seg.commands import account, admin, concept, db, export, models, serve, sign_in, token
from s3seg.commands.bulk import command as bulk
from s3seg.commands.calibrate import calibrate
from s3seg.commands.demo.command import demo
from s3seg.commands.doctor.command import doctor
from s3seg.commands.errors import ErrorHandlingGroup
from s3seg.commands.geotiff import geotiff
from s3seg.commands.help import CommandWithSections
from s3seg.commands.mcp import mcp
from s3seg.commands.segment.command import segment
from s3seg.commands.worker import worker

app = typer.Typer(
    name="s3seg",
    cls=ErrorHandlingGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # --debug prints Python's own traceback
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"s3seg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="S3SEG_DEBUG", help="Print the traceback of an error.")
    ] = False,
) -> None:
    """Name what you are looking for, get its masks."""


app.command("demo", cls=CommandWithSections)(demo)
app.command("segment", cls=CommandWithSections)(segment)
app.command("calibrate", cls=CommandWithSections)(calibrate)
app.command("geotiff", cls=CommandWithSections)(geotiff)
app.add_typer(export.app, name="export")
app.command("export-account", cls=CommandWithSections)(account.export_account)
app.command("delete-account", cls=CommandWithSections)(account.delete_account)
app.add_typer(concept.app, name="concept")
app.add_typer(bulk.app, name="bulk")
app.add_typer(models.app, name="models")
app.command("doctor", cls=CommandWithSections)(doctor)
app.command("login", cls=CommandWithSections)(sign_in.login)
app.command("logout", cls=CommandWithSections)(sign_in.logout)
app.command("whoami", cls=CommandWithSections)(sign_in.whoami)
app.add_typer(token.app)
app.add_typer(admin.app, name="admin")
app.add_typer(db.app, name="db")
app.add_typer(serve.app, name="serve")
app.command("worker", cls=CommandWithSections)(worker)
app.command("mcp", cls=CommandWithSections)(mcp)


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Never fail on characters that the terminal cannot show; files and pipes get UTF-8.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    try:
        app(prog_name="s3seg")
    finally:
        gc.freeze()  # all memory goes with the process; looking for cycles among PyTorch's objects takes 0.2 s
