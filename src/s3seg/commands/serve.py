"""``s3seg serve``: run the services over HTTP."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3seg.commands.model_options import AcceptLicense, Checkpoint, Device, Dtype, Pull, model_settings, pull_if_missing
from s3seg.commands.users import lifetime, user_id
from s3seg.errors import InvalidRequestError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from s3seg.app.settings import Settings

app = typer.Typer(help="Serve over HTTP until Ctrl-C: all in one process, or `edge` and `gpu` apart.")

_LOCAL_CREDITS = 1000
_TOKEN_TTL_S = 86_400
_TOOLS = "openai, roboflow, x-anylabeling, label-studio"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

Host = Annotated[str, typer.Option(help="Address to listen on.")]
EdgePort = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: EdgePort = 8000,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    user: Annotated[str, typer.Option(help="Name of the user whose token is printed.")] = "local",
    print_token: Annotated[
        bool | None,
        typer.Option(
            "--print-token/--no-print-token",
            help="Print an access token, valid for 24 hours.",
            show_default="only if standard output is a terminal",
        ),
    ] = None,
) -> None:
    """Serve everything in one process, and print the address and an access token.

    Runs until Ctrl-C. The printed lines that begin with `export` can be pasted into another terminal.
    """
    if (command := context.invoked_subcommand) is not None:
        if misplaced := [name for name in context.params if was_given(context, name)]:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in misplaced)
            raise InvalidRequestError(f"{options} must come after the command: s3seg serve {command} {options} ...")
        return
    from s3seg.app import whole_app
    from s3seg.web.logs import configure_logging

    configure_logging()
    settings = public_settings(model_settings(checkpoint, device, dtype), host, port)
    service = whole_app(settings)
    # A service's standard output is often a log that others can read, so a token goes only to a terminal unless asked.
    show_token = sys.stdout.isatty() if print_token is None else print_token
    print_access(settings, f"http://{_url_host(host)}:{port}", user, show_token=show_token)
    _run_with_worker(service, settings, host, port)


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line; its default does not count."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command("edge")
def serve_edge(host: Host = "127.0.0.1", port: EdgePort = 8000) -> None:
    """Serve the public API, without a model. Does not need PyTorch."""
    from s3seg.app import edge_app
    from s3seg.app.settings import Settings
    from s3seg.web.logs import configure_logging

    configure_logging()
    settings = public_settings(Settings(), host, port)
    if "inference" not in settings.model_fields_set and settings.api_secret_key is not None:
        settings = settings.model_copy(update={"inference": "http"})
    _run(edge_app(settings), settings, host, port)


@app.command("gpu")
def serve_gpu(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")] = 8001,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    pull: Pull = False,
    accept_license: AcceptLicense = False,
    insecure_no_key: Annotated[
        bool, typer.Option("--insecure-no-key", help="Serve without API_SECRET_KEY; on loopback only.")
    ] = False,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="TOOL,...", help=f"Offer routes: {_TOOLS}; repeatable."),
    ] = None,
) -> None:
    """Serve the inference API: run waiting tasks, and answer the edge."""
    from s3seg.app import gpu_app
    from s3seg.web.logs import configure_logging

    configure_logging()
    check_no_key(insecure_no_key, host)
    settings = model_settings(checkpoint, device, dtype)
    if pull:
        pull_if_missing(settings.checkpoint, accept_license=accept_license)
    if with_:
        names = tuple(name.strip() for names in with_ for name in names.split(",") if name.strip())
        settings = settings.model_copy(update={"integrations": names})
    _run_with_worker(gpu_app(settings, insecure_no_key=insecure_no_key), settings, host, port)


def check_no_key(insecure_no_key: bool, host: str) -> None:
    """Raise InvalidRequestError if a service would be open to other machines without a key."""
    if insecure_no_key and host not in _LOOPBACK:
        raise InvalidRequestError(
            f"--insecure-no-key serves on loopback only, and --host is {host}; set API_SECRET_KEY instead"
        )


def public_settings(settings: Settings, host: str, port: int) -> Settings:
    """Return settings with a public URL for images and masks: where this process listens, unless one is set."""
    if "public_base_url" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"public_base_url": f"http://{_url_host(host)}:{port}/files"})


def _run_with_worker(service: Starlette, settings: Settings, host: str, port: int) -> None:
    """Serve an application that has a worker, which drains and stops with the server."""
    worker = service.state.engine.worker
    _run(service, settings, host, port, on_drain=worker.drain, on_stop=worker.aclose)


def _run(service: Starlette, settings: Settings, host: str, port: int, **hooks: Any) -> None:
    from s3seg.web.connection_limits import ConnectionLimits
    from s3seg.web.server import run_server

    limits = ConnectionLimits(connections=settings.max_connections)
    run_server(service, host=host, port=port, drain_s=settings.drain_s, limits=limits, **hooks)


def _url_host(host: str) -> str:
    """The host to put in a URL for clients on this machine."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 (compared, not bound)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def print_access(settings: Settings, url: str, user: str, *, show_token: bool) -> None:
    """Print the address and a token, as lines to paste into a shell, and a link for the browser.

    Local users get credits, so that one's own machine costs nothing.

    Args:
        settings: Those of the service.
        url: Its address.
        user: The local user whose token is printed.
        show_token: Print the token itself, or else the command that makes one.
    """
    import asyncio

    from s3seg.app import Parts, local_keys
    from s3seg.tasks.limits import Tier

    async def top_up() -> None:
        parts = Parts(settings)
        try:
            account = await parts.accounts.ensure(user_id(user), tier=Tier.ENTERPRISE)
            if account.credits < _LOCAL_CREDITS:
                await parts.accounts.adjust(account.user_id, _LOCAL_CREDITS - account.credits)
        finally:
            await parts.aclose()

    typer.echo(f"export S3SEG_URL={url}")
    if settings.authenticator != "local":
        typer.echo(f"To sign in: s3seg login {url}")
        if settings.playground:
            typer.echo(f"In a browser: {url}/")
        return
    asyncio.run(top_up())
    command = f"s3seg token --user {shlex.quote(user)}"
    if not show_token:
        typer.echo(f'export S3SEG_TOKEN="$({command})"')
        if settings.playground:
            typer.echo(f"In a browser: {url}/")
        return
    token = local_keys(settings).mint(user, tier=Tier.ENTERPRISE, ttl_s=_TOKEN_TTL_S)
    typer.echo(f"export S3SEG_TOKEN={token}")
    if settings.playground:
        typer.echo(f"In a browser: {url}/#token={token}")  # browsers do not send what follows #
    typer.echo(f"The token is valid for {lifetime(_TOKEN_TTL_S)}; for another one, run: {command}")
