"""``s3seg serve`` and ``s3seg worker``: run the services."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from s3seg.app.settings import Settings

app = typer.Typer(help="Serve over HTTP: everything in one process, or `edge` and `gpu` apart.")

_log = logging.getLogger("s3seg.inference.worker")
_LOCAL_CREDITS = 1000
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

Host = Annotated[str, typer.Option(help="Address to listen on.")]
EdgePort = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Checkpoint = Annotated[str | None, typer.Option(help="Weights: embedded, sam3, or a path.")]
Device = Annotated[str | None, typer.Option(help="auto, cuda:0, mps, cpu.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: EdgePort = 8000,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    user: Annotated[str, typer.Option(help="Whose token is printed.")] = "local",
) -> None:
    """Serve everything in one process, and print its address with a token to use it."""
    if context.invoked_subcommand is not None:
        return
    from s3seg.app import whole_app
    from s3seg.web.server import run_server

    with serving():
        settings = public_settings(model_settings(checkpoint, device, dtype), host, port)
        _welcome(settings, f"http://{_spoken(host)}:{port}", user)
        service = whole_app(settings)
        worker = service.state.engine.worker
        run_server(
            service,
            host=host,
            port=port,
            drain_s=settings.drain_s,
            on_drain=worker.drain,
            on_stop=worker.aclose,
        )


@app.command("edge")
def serve_edge(host: Host = "127.0.0.1", port: EdgePort = 8000) -> None:
    """The public API, without a model; never loads PyTorch."""
    from s3seg.app import edge_app
    from s3seg.app.settings import Settings
    from s3seg.web.server import run_server

    with serving():
        settings = public_settings(Settings(), host, port)
        if "inference" not in settings.model_fields_set and settings.api_secret_key is not None:
            settings = settings.model_copy(update={"inference": "http"})
        run_server(edge_app(settings), host=host, port=port, drain_s=settings.drain_s)


@app.command("gpu")
def serve_gpu(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8001,
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    insecure_no_key: Annotated[
        bool, typer.Option("--insecure-no-key", help="Serve without API_SECRET_KEY; on loopback only.")
    ] = False,
) -> None:
    """The inference service: works on waiting tasks, and answers the edge."""
    from s3seg.app import gpu_app
    from s3seg.errors import ConfigurationError
    from s3seg.web.server import run_server

    with serving():
        if insecure_no_key and host not in _LOOPBACK:
            raise ConfigurationError(
                f"--insecure-no-key serves on loopback only, not on {host}: set API_SECRET_KEY instead"
            )
        settings = model_settings(checkpoint, device, dtype)
        service = gpu_app(settings, insecure_no_key=insecure_no_key)
        worker = service.state.engine.worker
        run_server(
            service,
            host=host,
            port=port,
            drain_s=settings.drain_s,
            on_drain=worker.drain,
            on_stop=worker.aclose,
        )


def worker(checkpoint: Checkpoint = None, device: Device = None, dtype: Dtype = None) -> None:
    """Work on waiting tasks, without HTTP: a machine behind NAT needs no open port."""
    import asyncio

    with serving():
        asyncio.run(_work(model_settings(checkpoint, device, dtype)))


@contextmanager
def serving() -> Iterator[None]:
    """Log as JSON; an error of ours ends the command with one line."""
    from s3seg.errors import S3segError
    from s3seg.web.logs import configure_logging

    configure_logging()
    try:
        yield
    except S3segError as err:
        typer.echo(f"error: {err}", err=True)
        raise typer.Exit(1) from None


def model_settings(checkpoint: str | None, device: str | None, dtype: str | None) -> Settings:
    """The settings of the environment, with what was given on the command line.

    Raises:
        CheckpointNotFoundError: The weights are not on this machine; said at once, not once they are loaded.
    """
    from s3seg import checkpoints
    from s3seg.app.settings import Settings

    given: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "dtype": dtype}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    checkpoints.resolve(settings.checkpoint)
    return settings


def public_settings(settings: Settings, host: str, port: int) -> Settings:
    """With the public address of images and masks, if none is set: where this process listens."""
    if "public_base_url" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"public_base_url": f"http://{_spoken(host)}:{port}/files"})


def _spoken(host: str) -> str:
    """The host in a URL that this machine can open."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 (compared, not bound)
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _welcome(settings: Settings, url: str, user: str) -> None:
    """Print address and token, the account filled up: who runs the service need not pay for it."""
    import asyncio

    from s3seg.adapters.local_auth import user_id_of
    from s3seg.app import Parts, local_keys
    from s3seg.tasks.limits import Tier

    async def fill_up() -> None:
        parts = Parts(settings)
        try:
            account = await parts.accounts.ensure(user_id_of(user), tier=Tier.ENTERPRISE)
            if account.credits < _LOCAL_CREDITS:
                await parts.accounts.adjust(account.user_id, _LOCAL_CREDITS - account.credits)
        finally:
            await parts.aclose()

    typer.echo(f"S3SEG_URL={url}")
    if settings.authenticator == "local":
        asyncio.run(fill_up())
        token = local_keys(settings).mint(user, tier=Tier.ENTERPRISE)
        typer.echo(f"S3SEG_TOKEN={token}")
        if settings.playground:
            typer.echo(f"In a browser: {url}/#token={token}")  # what follows # stays in the browser
    elif settings.playground:
        typer.echo(f"In a browser: {url}/")


async def _work(settings: Settings) -> None:
    """Work until a signal, then drain; a second signal ends the process, even while weights load."""
    import asyncio
    import signal

    from s3seg.app import Parts, make_engine
    from s3seg.web.server import stop_at_once

    parts = Parts(settings)
    engine = make_engine(parts)
    stop, now = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            now.set()
        else:
            _log.info("draining")
            stop.set()

    async def work() -> None:
        engine.start()
        try:
            loaded = asyncio.ensure_future(engine.loaded())
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({loaded, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if loaded.done():
                loaded.result()  # a worker that cannot see is of no use
            await stopped
        finally:
            await engine.aclose(grace_s=settings.drain_s)
            await parts.aclose()

    loop = asyncio.get_running_loop()
    names = (signal.SIGTERM, signal.SIGINT)
    for name in names:
        loop.add_signal_handler(name, signalled)
    working = asyncio.ensure_future(work())
    await asyncio.wait({working, asyncio.ensure_future(now.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        await stop_at_once(engine.worker.aclose)
        for name in names:
            loop.remove_signal_handler(name)
        signal.raise_signal(signal.SIGTERM)  # threads, such as the one that loads weights, would not let it return
    working.result()
