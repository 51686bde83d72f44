"""``s3seg export-account`` and ``s3seg delete-account``: all that you have on a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3seg.commands.escaping import one_line
from s3seg.commands.service import connect

Url = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="S3SEG_URL", help="Address of the service.", show_default=False)
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="Access token; if not given S3SEG_TOKEN, or else your sign-in.",
        show_default=False,
    ),
]


def export_account(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar archive to make; must not exist.")],
    url: Url,
    token: Token = None,
) -> None:
    """Save all that you have on a service as a tar archive: pictures, results, masks, and the history of your credits.

    If it is interrupted, run it again: what has arrived is kept in FILE.partial.
    """
    with connect(url, token) as client:
        saved = client.export_account(file)
    typer.echo(f"{saved}: {saved.stat().st_size} bytes")


def delete_account(
    url: Url,
    token: Token = None,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm", metavar="USER_ID", help="Your user id, to delete without being asked.", show_default=False
        ),
    ] = None,
) -> None:
    """Delete your account on a service and all that it has, for ever. Tokens of the account are refused afterwards."""
    with connect(url, token) as client:
        if confirm is None:
            user_id = client.me().user_id
            typer.confirm(
                f"Delete the account {one_line(user_id)} and all that it has, for ever?", abort=True, err=True
            )
            confirm = user_id
        deleted = client.delete_account(confirm)
    typer.echo(f"the account {one_line(deleted.id)} was deleted at {deleted.deleted_at:%Y-%m-%d %H:%M} UTC")
    for kept in deleted.kept:
        typer.echo(f"kept: {one_line(kept)}")
