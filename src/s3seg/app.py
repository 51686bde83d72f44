"""The composition root: the only place that picks adapters.

An adapter is chosen by name in the settings: one of ours, one that an installed package offers as an entry
point in the group ``s3seg.<port>`` (such as ``s3seg.object_store``), or a dotted path
``package.module:factory``. The factory takes the `Settings` and returns the adapter.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from s3seg.errors import ConfigurationError
from s3seg.ports import (
    Accounts,
    Authenticator,
    Inference,
    ObjectStore,
    Part,
    RateLimiter,
    TaskQueue,
    TaskStore,
)
from s3seg.settings import Settings
from s3seg.task_machine import Rules

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute

    from s3seg.adapters.local_auth import LocalKeys
    from s3seg.adapters.memory import MemoryTables
    from s3seg.engine import Engine
    from s3seg.local import Local
    from s3seg.meter import Meter
    from s3seg.staged import Network


class Parts:
    """The adapters that the settings choose, each made when first asked for.

    A process holds only what it asks for: an edge that never touches `task_queue` needs no key for it.

    Args:
        settings: Frozen settings; read from the environment if not given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._made: list[Part] = []

    @cached_property
    def objects(self) -> ObjectStore:
        """Where images and masks lie."""
        return self._make("object_store", self.settings.object_store)

    @cached_property
    def task_store(self) -> TaskStore:
        """What users may do with tasks."""
        return self._make("task_store", self.settings.task_store)

    @cached_property
    def task_queue(self) -> TaskQueue:
        """What workers may do with tasks."""
        return self._make("task_queue", self.settings.task_queue or self.settings.task_store)

    @cached_property
    def accounts(self) -> Accounts:
        """What operators may do with accounts."""
        return self._make("accounts", self.settings.accounts or self.settings.task_store)

    @cached_property
    def authenticator(self) -> Authenticator:
        """Who judges access tokens."""
        return self._make("authenticator", self.settings.authenticator)

    @cached_property
    def rate_limiter(self) -> RateLimiter:
        """Who counts requests."""
        return self._make("rate_limiter", self.settings.rate_limiter)

    @cached_property
    def inference(self) -> Inference:
        """Who is told that work waits."""
        return self._make("inference", self.settings.inference)

    async def aclose(self) -> None:
        """Close what was made, last first."""
        while self._made:
            await self._made.pop().aclose()

    def _make(self, port: str, name: str) -> Any:
        ours = _OURS.get((port, name))
        try:
            part = ours(self) if ours is not None else _find_factory(port, name)(self.settings)
        except ModuleNotFoundError as err:
            raise ConfigurationError(f"{port}={name!r} needs {err.name}; pip install 's3seg[cloud]'") from err
        self._made.append(part)
        return part

    @cached_property
    def sqlite(self) -> dict[str, Any]:
        """What the SQLite adapters of one process share: one writer thread, one policy."""
        from s3seg.adapters.sqlite import Database, Policy

        settings = self.settings
        path = settings.data_dir / "tasks.sqlite3"
        return {
            "database": Database(path, busy_timeout_s=settings.database_timeout_s),
            "policy": Policy(
                public_base=settings.public_base_url,
                rules=_rules(settings),
                rates=settings.rates,
                welcome_credits=settings.welcome_credits,
            ),
        }

    @cached_property
    def memory(self) -> MemoryTables:
        """What the in-memory adapters of one process share."""
        from s3seg.adapters.memory import MemoryTables

        settings = self.settings
        return MemoryTables(
            public_base=settings.public_base_url,
            rules=_rules(settings),
            rates=settings.rates,
            welcome_credits=settings.welcome_credits,
        )


def edge_app(settings: Settings | None = None, *, parts: Parts | None = None) -> Starlette:
    """The edge service as an ASGI application, on the adapters that the settings choose.

    Mounted in an application of yours, it needs nothing more: every part begins with its first use. Starlette does
    not run the lifespan of what is mounted, so run it in yours, to close files and threads at the end::

        edge = edge_app(Settings(public_base_url="https://me.example/seg/files"))

        @asynccontextmanager
        async def lifespan(app):
            async with edge.router.lifespan_context(edge):
                yield

        app = FastAPI(lifespan=lifespan)
        app.mount("/seg", edge)

    Args:
        settings: Frozen settings; read from the environment if not given.
        parts: Adapters to share with another service of the same process; its maker closes them.
    """
    own = parts is None
    parts = parts or Parts(settings)
    return _edge_app(parts, engine=None, close_parts=own)


def whole_app(settings: Settings | None = None) -> Starlette:
    """The edge service with the inference side in the same process; its lifespan must run.

    Args:
        settings: Frozen settings; read from the environment if not given. ``inference`` is taken to be ``memory``.
    """
    parts = Parts((settings or Settings()).model_copy(update={"inference": "memory"}))
    return _edge_app(parts, engine=make_engine(parts), close_parts=True)


def _edge_app(parts: Parts, *, engine: Engine | None, close_parts: bool) -> Starlette:
    from s3seg.edge import Edge, EdgeOptions
    from s3seg.web.edge_service import edge_service

    settings = parts.settings
    edge = Edge(
        objects=parts.objects,
        tasks=parts.task_store,
        authenticator=parts.authenticator,
        limiter=parts.rate_limiter,
        inference=parts.inference,
        options=EdgeOptions(max_pixels=int(settings.upload_megapixels * 1e6)),
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if engine is not None:
            engine.start()
        try:
            yield
        finally:
            await edge.aclose()
            if engine is not None:
                await engine.aclose(grace_s=settings.drain_s)
            if close_parts:
                await parts.aclose()

    app = edge_service(
        edge,
        rates=settings.rates,
        cors_origins=settings.cors_origins,
        lifespan=lifespan,
        more_routes=_playground(settings),
    )
    app.state.engine = engine
    return app


def _playground(settings: Settings) -> Sequence[BaseRoute]:
    from s3seg.web.playground import playground_routes

    if not settings.playground:
        return ()
    redirects = not settings.r2_public and settings.r2_endpoint_url
    return playground_routes(public_base=settings.public_base_url, storage=[redirects] if redirects else [])


def gpu_app(
    settings: Settings | None = None,
    *,
    parts: Parts | None = None,
    insecure_no_key: bool = False,
    load: Callable[[], Network] | None = None,
) -> Starlette:
    """The gpu service as an ASGI application, with a claim loop of its own; its lifespan must run.

    Args:
        settings: Frozen settings; read from the environment if not given.
        parts: Adapters to share with another service of the same process; its maker closes them.
        insecure_no_key: Leave the routes open, where only this machine can reach them.
        load: Loads another network than the settings name.

    Raises:
        ConfigurationError: There is no key, and none of that was asked for.
    """
    from s3seg.web.gpu_metrics import PrometheusMeter
    from s3seg.web.gpu_service import gpu_service
    from s3seg.web.metrics import HttpMetrics

    own = parts is None
    parts = parts or Parts(settings)
    keys = _gpu_keys(parts.settings, insecure_no_key=insecure_no_key)
    metrics = HttpMetrics()
    engine = make_engine(parts, meter=PrometheusMeter(metrics.registry), load=load)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await engine.aclose(grace_s=parts.settings.drain_s)
            if own:
                await parts.aclose()

    app = gpu_service(engine, keys=keys, metrics=metrics, lifespan=lifespan)
    app.state.engine = engine
    return app


def make_engine(parts: Parts, *, meter: Meter | None = None, load: Callable[[], Network] | None = None) -> Engine:
    """The inference side on the chosen adapters; not started."""
    from s3seg.batching import Limits
    from s3seg.engine import Engine, EngineOptions
    from s3seg.worker import WorkerLimits

    settings = parts.settings
    options = EngineOptions(
        worker=WorkerLimits(
            claimed=settings.claimed_at_once,
            admitted=settings.admitted_at_once,
            lease_s=settings.lease_s,
            poll_s=settings.poll_s,
        ),
        batches=Limits(
            pictures=settings.batch_images,
            prompts=settings.batch_prompts,
            cache_bytes=settings.embedding_cache_mb * 2**20,
        ),
        retry_after_s=settings.retry_after_s,
        **({} if settings.cpu_threads is None else {"cpu_threads": settings.cpu_threads}),
    )
    return Engine(
        queue=parts.task_queue,
        objects=parts.objects,
        load=load or (lambda: _load_network(settings)),
        options=options,
        meter=meter,
        **_woken_by(parts),
    )


def local(settings: Settings | None = None) -> Local:
    """The whole service in this process, without HTTP, for ``async with``; see `Local`.

    Args:
        settings: By default everything is in memory, and gone at the end.
    """
    from s3seg.local import Local

    settings = settings or Settings(
        object_store="memory", task_store="memory", rate_limits="off", welcome_credits=1_000_000
    )
    parts = Parts(settings)
    return Local(
        objects=parts.objects,
        tasks=parts.task_store,
        inference=parts.inference,
        engine=make_engine(parts),
        close=parts.aclose,
    )


def _load_network(settings: Settings) -> Network:
    from s3seg.segmenter import Segmenter
    from s3seg.staged import SegmenterNetwork

    segmenter = Segmenter(settings.checkpoint, device=settings.device, dtype=settings.dtype)
    return SegmenterNetwork(segmenter, max_pixels=int(settings.max_megapixels * 1e6))


def _woken_by(parts: Parts) -> dict[str, Callable[[float], Awaitable[object]]]:
    """An edge in the same process wakes the claim loop; others are found by looking."""
    from s3seg.adapters.memory import MemoryInference

    if parts.settings.inference == "memory" and isinstance(parts.inference, MemoryInference):
        return {"wait_for_work": parts.inference.wait}
    return {}


def _gpu_keys(settings: Settings, *, insecure_no_key: bool) -> list[str]:
    chosen = (settings.api_secret_key, settings.api_secret_key_previous)
    keys = [key.get_secret_value() for key in chosen if key is not None and key.get_secret_value().strip()]
    if not keys and not insecure_no_key:
        raise ConfigurationError(
            "the gpu service needs a key: set API_SECRET_KEY to a long random value, the same in the edge "
            "(or --insecure-no-key, on loopback only)"
        )
    return keys


def local_keys(settings: Settings) -> LocalKeys:
    """The key that signs and checks the tokens of an installation without Supabase."""
    from s3seg.adapters.local_auth import LocalKeys

    return LocalKeys(settings.data_dir / "auth" / "signing-key.pem")


def _rules(settings: Settings) -> Rules:
    return Rules(max_attempts=settings.max_attempts, deadline_s=settings.task_deadline_s)


def _files(parts: Parts) -> ObjectStore:
    from s3seg.adapters.files import FileObjectStore

    settings = parts.settings
    return FileObjectStore(settings.data_dir / "objects", public_base=settings.public_base_url)


def _memory_objects(parts: Parts) -> ObjectStore:
    from s3seg.adapters.memory import MemoryObjectStore

    return MemoryObjectStore(public_base=parts.settings.public_base_url)


def _sqlite_tasks(parts: Parts) -> TaskStore:
    from s3seg.adapters.sqlite import SqliteTaskStore

    return SqliteTaskStore(**parts.sqlite)


def _sqlite_queue(parts: Parts) -> TaskQueue:
    from s3seg.adapters.sqlite import SqliteTaskQueue

    return SqliteTaskQueue(**parts.sqlite)


def _sqlite_accounts(parts: Parts) -> Accounts:
    from s3seg.adapters.sqlite import SqliteAccounts

    return SqliteAccounts(**parts.sqlite)


def _memory_tasks(parts: Parts) -> TaskStore:
    from s3seg.adapters.memory import MemoryTaskStore

    return MemoryTaskStore(parts.memory)


def _memory_queue(parts: Parts) -> TaskQueue:
    from s3seg.adapters.memory import MemoryTaskQueue

    return MemoryTaskQueue(parts.memory)


def _memory_accounts(parts: Parts) -> Accounts:
    from s3seg.adapters.memory import MemoryAccounts

    return MemoryAccounts(parts.memory)


def _local_auth(parts: Parts) -> Authenticator:
    from s3seg.adapters.jwt import JwtAuthenticator
    from s3seg.adapters.local_auth import ISSUER

    return JwtAuthenticator(local_keys(parts.settings), issuers=[ISSUER])


def _supabase_rest(settings: Settings, key: str) -> Any:
    from s3seg.adapters.supabase import Rest

    url = _required(settings, "supabase_url", "task_store='supabase'")
    chosen = _required(settings, key, "task_store='supabase'")
    return Rest(url, chosen, timeout_s=settings.database_timeout_s)


def _supabase_tasks(parts: Parts) -> TaskStore:
    from s3seg.adapters.supabase import SupabaseTaskStore

    settings = parts.settings
    rest = _supabase_rest(settings, "supabase_publishable_key")
    return SupabaseTaskStore(rest, public_base=settings.public_base_url)


def _supabase_queue(parts: Parts) -> TaskQueue:
    from s3seg.adapters.supabase import SupabaseTaskQueue

    settings = parts.settings
    return SupabaseTaskQueue(_supabase_rest(settings, "supabase_secret_key"), public_base=settings.public_base_url)


def _supabase_accounts(parts: Parts) -> Accounts:
    from s3seg.adapters.supabase import SupabaseAccounts

    settings = parts.settings
    return SupabaseAccounts(_supabase_rest(settings, "supabase_secret_key"), public_base=settings.public_base_url)


def _supabase_auth(parts: Parts) -> Authenticator:
    from s3seg.adapters.jwt import JwtAuthenticator
    from s3seg.adapters.supabase_auth import SupabaseKeys

    settings = parts.settings
    project = _required(settings, "supabase_url", "authenticator='supabase'")
    issuer = f"{project.rstrip('/')}/auth/v1"
    keys = SupabaseKeys(f"{issuer}/.well-known/jwks.json", secret=settings.supabase_jwt_secret)
    return JwtAuthenticator(keys, issuers=[issuer])


def _r2(parts: Parts) -> ObjectStore:
    from s3seg.adapters.r2 import R2ObjectStore

    settings, why = parts.settings, "object_store='r2'"
    return R2ObjectStore(
        endpoint_url=_required(settings, "r2_endpoint_url", why),
        bucket=_required(settings, "r2_bucket", why),
        access_key_id=_required(settings, "r2_access_key_id", why),
        secret_access_key=_required(settings, "r2_secret_access_key", why),
        public_base=settings.public_base_url,
        public=settings.r2_public,
    )


def _required(settings: Settings, name: str, why: str) -> Any:
    value = getattr(settings, name)
    if value is None:
        raise ConfigurationError(f"S3SEG_{name.upper()} is not set, and {why} needs it: {_described(name)}")
    return value


def _described(name: str) -> str:
    return Settings.model_fields[name].description or ""


def _memory_limiter(parts: Parts) -> RateLimiter:
    from s3seg.adapters.memory import MemoryRateLimiter

    return MemoryRateLimiter(table=parts.settings.rates)


def _memory_inference(parts: Parts) -> Inference:
    from s3seg.adapters.memory import MemoryInference

    return MemoryInference()


def _http_inference(parts: Parts) -> Inference:
    from s3seg.adapters.http_inference import HttpInference
    from s3seg.web.logs import bound_fields

    settings = parts.settings
    if settings.api_secret_key is None:
        raise ConfigurationError(
            "inference='http' needs the gpu service's key; set API_SECRET_KEY to the same value in both services"
        )
    return HttpInference(
        settings.gpu_url,
        api_key=settings.api_secret_key.get_secret_value(),
        request_id=lambda: bound_fields().get("request_id"),
    )


# vendors are imported when chosen, never before
_OURS: dict[tuple[str, str], Callable[[Parts], Part]] = {
    ("object_store", "files"): _files,
    ("object_store", "memory"): _memory_objects,
    ("task_store", "sqlite"): _sqlite_tasks,
    ("task_store", "memory"): _memory_tasks,
    ("task_queue", "sqlite"): _sqlite_queue,
    ("task_queue", "memory"): _memory_queue,
    ("accounts", "sqlite"): _sqlite_accounts,
    ("accounts", "memory"): _memory_accounts,
    ("authenticator", "local"): _local_auth,
    ("object_store", "r2"): _r2,
    ("task_store", "supabase"): _supabase_tasks,
    ("task_queue", "supabase"): _supabase_queue,
    ("accounts", "supabase"): _supabase_accounts,
    ("authenticator", "supabase"): _supabase_auth,
    ("rate_limiter", "memory"): _memory_limiter,
    ("inference", "memory"): _memory_inference,
    ("inference", "http"): _http_inference,
}


def _find_factory(port: str, name: str) -> Callable[[Settings], Part]:
    """A third party's factory: by entry point, else by dotted path."""
    offered = entry_points(group=f"s3seg.{port}", name=name)
    try:
        for entry in offered:
            return entry.load()
        module, colon, attribute = name.partition(":")
        if colon:
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise ConfigurationError(f"{port}={name!r} cannot be loaded: {err}") from err
    ours = sorted(known for kind, known in _OURS if kind == port)
    raise ConfigurationError(
        f"{port}={name!r} is not known; choose one of {', '.join(ours)}, install a package that offers it as "
        f"an entry point in group 's3seg.{port}', or give 'package.module:factory'"
    )
