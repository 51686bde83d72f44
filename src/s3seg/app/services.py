"""The services, built from the parts that the settings choose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from s3seg.app.background import maintenance
from s3seg.app.engine import decoding_pool, make_engine
from s3seg.app.parts import Parts
from s3seg.app.settings import Settings
from s3seg.app.sign_in import sign_in_of
from s3seg.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from s3seg.app.in_process import Local
    from s3seg.decoding import DecodingPool
    from s3seg.edge.uploads import Inspect
    from s3seg.inference.engine import Engine
    from s3seg.inference.network import Network
    from s3seg.tasks.backlog import Backlog
    from s3seg.web.operations import Operation

_log = logging.getLogger(__name__)


def edge_app(settings: Settings | None = None, *, parts: Parts | None = None) -> Starlette:
    """Build the edge service as an ASGI application, on the adapters that the settings choose.

    It can be mounted in an application of yours: every part starts when it is first used. Starlette does not run the
    lifespan of a mounted application, so run it in yours, to close files and threads at the end::

        edge = edge_app(Settings(public_base_url="https://me.example/seg/files"))

        @asynccontextmanager
        async def lifespan(app):
            async with edge.router.lifespan_context(edge):
                yield

        app = FastAPI(lifespan=lifespan)
        app.mount("/seg", edge)

    Args:
        settings: Frozen settings; read from the environment if not given.
        parts: Adapters to share with another service of the same process; their maker closes them.
    """
    own = parts is None
    parts = parts or Parts(settings)
    return _edge_app(parts, engine=None, close_parts=own)


def whole_app(settings: Settings | None = None) -> Starlette:
    """Build the edge service with inference in the same process; its lifespan must run.

    Args:
        settings: Frozen settings; read from the environment if not given. ``inference`` is set to ``memory``.
    """
    parts = Parts((settings or Settings()).model_copy(update={"inference": "memory"}))
    return _edge_app(parts, engine=make_engine(parts), close_parts=True)


def _edge_app(parts: Parts, *, engine: Engine | None, close_parts: bool) -> Starlette:
    from s3seg.edge import Edge, EdgeOptions
    from s3seg.tasks.maintenance import Removals
    from s3seg.web.edge_app import build_edge_app
    from s3seg.web.metrics import HttpMetrics
    from s3seg.web.removal_metrics import RemovalCounter
    from s3seg.web.state_metrics import StateGauges

    settings = parts.settings
    decoding = _upload_decoding(settings)
    edge = Edge(
        objects=parts.objects,
        tasks=parts.task_store,
        webhooks=parts.webhooks,
        webhooks_to_private_addresses=settings.webhooks_to_private_addresses,
        authenticator=parts.authenticator,
        limiter=parts.rate_limiter,
        notifier=parts.notifier,
        inspect=_inspect(settings, decoding),
        options=EdgeOptions(max_pixels=int(settings.upload_megapixels * 1e6)),
    )

    metrics = HttpMetrics()
    state = StateGauges(_with_inference(edge.check, parts), _backlog(parts))
    metrics.add(state, refresh=state.refresh)
    removals = Removals()
    metrics.registry.register(RemovalCounter(removals))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with suppress(UnavailableError):  # /ready says so, and the service may recover
            await parts.announce()
        if engine is not None:
            engine.start()
        if decoding is not None:
            decoding.start()
        checking = asyncio.ensure_future(_report(edge.check))
        try:
            async with maintenance(parts, removals):
                yield
        finally:
            await _stop(checking)
            await edge.aclose()
            if decoding is not None:
                await decoding.aclose()
            if engine is not None:
                await engine.aclose(grace_s=settings.drain_s)
            if close_parts:
                await parts.aclose()

    app = build_edge_app(
        edge,
        rates=settings.rates,
        sign_in=sign_in_of(settings),
        cors_origins=settings.cors_origins,
        cors_headers=settings.cors_headers,
        metrics=metrics,
        lifespan=lifespan,
        prefix=_prefix(settings),
        more_routes=_playground(settings),
    )
    app.state.engine = engine
    return app


def _upload_decoding(settings: Settings) -> DecodingPool | None:
    if settings.upload_check == "header":
        return None
    for module in ("PIL", "numpy"):
        if find_spec(module) is None:
            raise ConfigurationError(
                "this installation cannot decode uploads, because Pillow or numpy is missing: set "
                "S3SEG_UPLOAD_CHECK=header, or run: pip install 's3seg-slim[images]'"
            )
    return decoding_pool(settings, "s3seg.edge.inspection:inspect_upload", wait_s=1.0)


def _inspect(settings: Settings, decoding: DecodingPool | None) -> Inspect | None:
    from s3seg.edge.picture_headers import inspect_header
    from s3seg.edge.uploads import inspect_in

    if settings.upload_check == "header":
        return inspect_header
    return None if decoding is None else partial(inspect_in, decoding)


def _prefix(settings: Settings) -> str:
    """Return the path under which the edge is served, if ``public_base_url`` says it: it ends in the edge's /files."""
    from s3seg.web.prefix import prefix_of_files

    served_by_a_bucket = settings.object_store == "r2" and settings.r2_public
    return "" if served_by_a_bucket else prefix_of_files(settings.public_base_url)


def _playground(settings: Settings) -> Sequence[BaseRoute]:
    from s3seg.web.playground import playground_routes

    if not settings.playground:
        return ()
    bucket = settings.r2_endpoint_url if settings.object_store == "r2" else None  # to upload to, and to read from
    return playground_routes(public_base=settings.public_base_url, storage=[bucket] if bucket else [])


def gpu_app(
    settings: Settings | None = None,
    *,
    parts: Parts | None = None,
    insecure_no_key: bool = False,
    load: Callable[[], Network | Sequence[Network]] | None = None,
) -> Starlette:
    """Build the gpu service as an ASGI application, with its own claim loop; its lifespan must run.

    Args:
        settings: Frozen settings; read from the environment if not given.
        parts: Adapters to share with another service of the same process; their maker closes them.
        insecure_no_key: Leave the routes open if no key is set; only for services that listen on loopback.
        load: Loads the network, instead of the one that the settings name.

    Raises:
        ConfigurationError: No key is set, and ``insecure_no_key`` is false; or an integration is not known.
    """
    from s3seg.integrations.routes import check_names
    from s3seg.tasks.maintenance import Removals
    from s3seg.web.gpu_app import build_gpu_app
    from s3seg.web.gpu_metrics import PrometheusMetrics
    from s3seg.web.metrics import HttpMetrics
    from s3seg.web.removal_metrics import RemovalCounter
    from s3seg.web.state_metrics import StateGauges

    own = parts is None
    parts = parts or Parts(settings)
    check_names(parts.settings.integrations)
    keys = gpu_keys(parts.settings, insecure_no_key=insecure_no_key)
    metrics = HttpMetrics()
    engine = make_engine(parts, metrics=PrometheusMetrics(metrics.registry), load=load)
    state = StateGauges(engine.check, parts.task_queue.backlog)
    metrics.add(state, refresh=state.refresh)
    removals = Removals()
    metrics.registry.register(RemovalCounter(removals))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        checking = asyncio.ensure_future(_report(engine.check))
        try:
            async with maintenance(parts, removals):
                yield
        finally:
            await _stop(checking)
            await engine.aclose(grace_s=parts.settings.drain_s)
            if own:
                await parts.aclose()

    more = _integrations(parts.settings, engine, keys)
    app = build_gpu_app(engine, keys=keys, metrics=metrics, lifespan=lifespan, more_operations=more)
    app.state.engine = engine
    return app


def _integrations(settings: Settings, engine: Engine, keys: Sequence[str]) -> Sequence[Operation]:
    """Return the operations of the tools that the settings name."""
    if not settings.integrations:
        return ()
    from s3seg.integrations.door import Door
    from s3seg.integrations.routes import ToolOptions, operations
    from s3seg.web.keys import ApiKeys

    options = ToolOptions(
        label_studio_url=settings.label_studio_url, label_studio_api_key=settings.label_studio_api_key
    )
    return operations(settings.integrations, Door(engine, ApiKeys(keys)), options)


def _with_inference(
    check: Callable[[], Awaitable[Mapping[str, str | None]]], parts: Parts
) -> Callable[[], Awaitable[Mapping[str, str | None]]]:
    """Add the way to the workers to the health of the parts that requests need."""
    from s3seg.tasks.health import health_check

    async def check_all() -> Mapping[str, str | None]:
        needed, inference = await asyncio.gather(check(), health_check(parts.notifier))
        return {**needed, "inference": inference}

    return check_all


def _backlog(parts: Parts) -> Callable[[], Awaitable[Backlog]] | None:
    """Return the backlog's reader; None for an edge that may not see the tasks of all users."""
    try:
        return parts.task_queue.backlog
    except ConfigurationError:
        return None


async def _report(check: Callable[[], Awaitable[Mapping[str, str | None]]]) -> None:
    """Log what does not work when a service starts."""
    for name, problem in (await check()).items():
        if problem not in (None, "ok", "loading"):
            _log.error("not ready: %s: %s", name, problem)


async def _stop(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def local(settings: Settings | None = None) -> Local:
    """Build the whole service in this process, without HTTP, for use with ``async with``; see `Local`.

    Args:
        settings: Frozen settings; by default everything is kept in memory and gone at the end.
    """
    from s3seg.app.in_process import Local

    settings = settings or Settings(
        object_store="memory", task_store="memory", rate_limits="off", welcome_credits=1_000_000
    )
    parts = Parts(settings)
    return Local(
        objects=parts.objects,
        tasks=parts.task_store,
        inference=parts.notifier,
        engine=make_engine(parts, decode_in_processes=False),  # the user's own pictures
        close=parts.aclose,
    )


def gpu_keys(settings: Settings, *, insecure_no_key: bool) -> list[str]:
    """Return the keys that the settings have for services that are called by programs, not by users.

    Args:
        settings: The settings.
        insecure_no_key: Allow that there is none.

    Raises:
        ConfigurationError: There is none.
    """
    chosen = (settings.api_secret_key, settings.api_secret_key_previous)
    keys = [key.get_secret_value() for key in chosen if key is not None and key.get_secret_value().strip()]
    if not keys and not insecure_no_key:
        raise ConfigurationError(
            "this service needs a key: set API_SECRET_KEY to a long random value (for the gpu service, the same as in "
            "the edge), or pass --insecure-no-key if it listens on loopback only"
        )
    return keys
