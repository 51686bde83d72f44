"""``s3seg mcp``: tools for agents, over the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.model_options import Checkpoint, Device, Dtype

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.inference.segmenter import Segmenter

_HTTP = "HTTP"


def mcp(
    context: typer.Context,
    folders: Annotated[
        list[Path] | None,
        typer.Option("--folder", metavar="DIR", help="Allow pictures below this folder; repeatable."),
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Allow http(s) URLs of pictures, also those inside your network.")
    ] = False,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Segment on this s3seg service instead of this machine.")
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve HTTP at /mcp, instead of standard input and output.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_HTTP)] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.", rich_help_panel=_HTTP),
    ] = 8002,
    insecure_no_key: Annotated[
        bool,
        typer.Option(
            "--insecure-no-key", help="Serve HTTP without API_SECRET_KEY; on loopback only.", rich_help_panel=_HTTP
        ),
    ] = False,
) -> None:
    """Give an agent tools that find, count, draw and cut out what it names in pictures.

    Serves the Model Context Protocol on standard input and output until they are closed; agents start this command
    themselves. With --http it serves HTTP until Ctrl-C.
    """
    from s3seg.commands.segment.backends import choose_backend
    from s3seg.commands.segment.options import ModelOptions
    from s3seg.commands.serve import check_no_key, was_given
    from s3seg.errors import ConfigurationError, InvalidRequestError
    from s3seg.web.logs import configure_logging

    if not http and (ignored := [name for name in ("host", "port", "insecure_no_key") if was_given(context, name)]):
        raise InvalidRequestError(f"--{ignored[0].replace('_', '-')} needs --http")
    try:
        from s3seg.integrations.mcp_server import build_server, http_app
    except ModuleNotFoundError as err:
        raise ConfigurationError(f"this needs the package {err.name}; run: pip install 's3seg[mcp]'") from err
    from s3seg.integrations.picture_access import PictureAccess

    configure_logging()
    options = ModelOptions(
        checkpoint=checkpoint, device=device or "auto", dtype=dtype or "auto", image_size=None, url=url, token=None
    )
    backend = choose_backend(options, boxes=False)  # a checkpoint that is not there is told now

    def load() -> Segmenter | Client:
        return backend.load()

    server = build_server(load, PictureAccess(folders or [], urls=allow_urls))
    if not http:
        server.run("stdio")
        return
    from s3seg.app.services import gpu_keys
    from s3seg.app.settings import Settings
    from s3seg.web.server import run_server

    check_no_key(insecure_no_key, host)
    keys = gpu_keys(Settings(), insecure_no_key=insecure_no_key)
    run_server(http_app(server, host=host, keys=keys), host=host, port=port, drain_s=5.0)
