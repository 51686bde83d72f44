"""``s3seg`` on the command line: registration only, the commands are in ``s3seg.commands``.

A further command is a line here: ``app.command("name")(function)``, or ``app.add_typer(app, name="name")``.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from s3seg.commands import admin, db, doctor, models, segment, serve, token
from s3seg.commands.endings import GroupWithEndings
from s3seg.commands.help import CommandWithSections
from s3seg.version import __version__

app = typer.Typer(
    name="s3seg",
    cls=GroupWithEndings,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback is asked for with --debug, and is then Python's own
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"s3seg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="S3SEG_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Say what you are looking for in a picture, get its masks."""


app.command("segment", cls=CommandWithSections)(segment.segment)
app.add_typer(models.app, name="models")
app.command("doctor", cls=CommandWithSections)(doctor.doctor)
app.add_typer(token.app)
app.add_typer(admin.app, name="admin")
app.add_typer(db.app, name="db")
app.add_typer(serve.app, name="serve")
app.command("worker", cls=CommandWithSections)(serve.worker)


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name or a sign that the terminal cannot show stops nothing
    app(prog_name="s3seg")
