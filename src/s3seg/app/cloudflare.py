"""The edge service in a Cloudflare Worker: PostgREST over fetch, R2 as a binding, signatures by WebCrypto.

Everything that requests share here is plain data. The runtime ends a request that waits for what another request does,
so each has an application of its own, with its own locks.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from typing import Any

from js import Object  # pyright: ignore[reportMissingImports]
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from s3seg.adapters.cloudflare.convert import is_nothing
from s3seg.adapters.cloudflare.fetch import FetchTransport
from s3seg.adapters.cloudflare.objects import R2BindingObjectStore
from s3seg.adapters.cloudflare.presigning import PutSigner
from s3seg.adapters.cloudflare.signatures import load_with_webcrypto, verify_with_webcrypto
from s3seg.adapters.http_notifier import HttpNotifier
from s3seg.adapters.jwt import JwtAuthenticator
from s3seg.adapters.memory import MemoryNotifier, MemoryRateLimiter
from s3seg.adapters.supabase.auth import KnownKeys, SupabaseKeys
from s3seg.adapters.supabase.limiter import SupabaseRateLimiter
from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import SupabaseTaskStore
from s3seg.app.settings import Settings
from s3seg.app.sign_in import sign_in_of
from s3seg.edge import Edge, EdgeMemory, EdgeOptions
from s3seg.edge.picture_headers import inspect_header
from s3seg.errors import ConfigurationError
from s3seg.tasks.ports import WorkerNotifier
from s3seg.web.cloudflare import ConsoleHandler, respond
from s3seg.web.edge_app import build_edge_app
from s3seg.web.envelope import render_error
from s3seg.web.errors import error_response
from s3seg.web.logs import JsonFormatter, bound_fields
from s3seg.web.metrics import HttpMetrics
from s3seg.web.operations import Handler
from s3seg.web.playground import playground_routes
from s3seg.web.prefix import prefix_of_files

_log = logging.getLogger(__name__)

BUCKET = "BUCKET"
"""Name of the R2 binding."""

_WAKE_UP_S = 25.0  # the runtime ends what is left of a request 30 seconds after its response
_CHOSEN_HERE = {"object_store": "r2", "task_store": "supabase", "authenticator": "supabase", "inference": "http"}


class WorkerEdge:
    """The edge of one isolate: settings, and what its requests share.

    Args:
        env: The Worker's ``env``: variables, secrets, and the binding ``BUCKET``.

    Raises:
        ConfigurationError: A setting or the binding is missing or not valid; see `explain`.
    """

    def __init__(self, env: Any) -> None:
        _log_to_console()
        self._settings = settings = _settings(env)
        self._bucket = _required(getattr(env, BUCKET, None), f"the R2 binding {BUCKET}")
        self._project = _required(settings.supabase_url, "S3SEG_SUPABASE_URL").rstrip("/")
        self._key = _required(settings.supabase_publishable_key, "S3SEG_SUPABASE_PUBLISHABLE_KEY")
        self._signer = _signer(settings)
        self._options = EdgeOptions(
            max_pixels=int(settings.upload_megapixels * 1e6),
            max_uploads=2,  # an isolate has 128 MB, and memory that was taken once is never given back
            max_uploads_per_user=1,
            upload_wait_s=0.0,
            max_watchers=100,
            max_watchers_per_user=20,
            longest_pause_s=1.0,  # a request may make 1,000 requests itself
            cached_tokens=500,
            place_lasts_s=400.0,
        )
        self._memory = EdgeMemory(self._options)
        self._keys = KnownKeys()
        self._metrics = HttpMetrics()
        self._openapi: Handler | None = None
        self._pages = _pages(settings, self._signer)
        self._prefix = "" if settings.r2_public else prefix_of_files(settings.public_base_url)
        self._unlimited = MemoryRateLimiter(table=settings.rates) if settings.rate_limits == "off" else None

    async def fetch(self, request: Any, *, keep_alive: Any) -> Any:
        """Answer a request.

        Args:
            request: A ``Request`` of JavaScript.
            keep_alive: The Worker's ``waitUntil``.

        Returns:
            A ``Response`` of JavaScript.
        """
        settings, edge = self._settings, self._new_edge()
        app = build_edge_app(
            edge,
            rates=settings.rates,
            sign_in=sign_in_of(settings),
            cors_origins=settings.cors_origins,
            cors_headers=settings.cors_headers,
            metrics=self._metrics,
            prefix=self._prefix,
            more_routes=self._pages,
            openapi=self._openapi,
        )
        self._openapi = app.state.openapi
        return await respond(app, request, keep_alive=keep_alive, finish=lambda: edge.aclose(notify_s=_WAKE_UP_S))

    def _new_edge(self) -> Edge:
        settings, transport = self._settings, FetchTransport()
        base, issuer = settings.public_base_url, f"{self._project}/auth/v1"
        rest = Rest(self._project, self._key, timeout_s=settings.database_timeout_s, transport=transport)
        keys = SupabaseKeys(
            f"{issuer}/.well-known/jwks.json",
            secret=settings.supabase_jwt_secret,
            transport=transport,
            load_key=load_with_webcrypto,
            known=self._keys,
        )
        return Edge(
            objects=R2BindingObjectStore(self._bucket, public_base=base, signer=self._signer),
            tasks=SupabaseTaskStore(rest, public_base=base),
            authenticator=JwtAuthenticator(keys, issuers=[issuer], verify_signature=verify_with_webcrypto),
            limiter=self._unlimited or SupabaseRateLimiter(rest, public_base=base),
            notifier=_notifier(settings, transport),
            inspect=inspect_header,
            options=self._options,
            memory=self._memory,
        )


async def explain(problem: ConfigurationError, request: Any, *, keep_alive: Any) -> Any:
    """Answer a request that cannot be served because of the settings. The log says which; the answer does not.

    Args:
        problem: What `WorkerEdge` raised.
        request: A ``Request`` of JavaScript.
        keep_alive: The Worker's ``waitUntil``.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request_id = str(uuid.uuid4())
        _log.error("not ready: %s", problem, extra={"request_id": request_id})
        response = render_error(error_response(problem), request_id)
        response.headers["X-Request-Id"] = request_id
        await response(scope, receive, send)

    async def finish() -> None: ...

    return await respond(app, request, keep_alive=keep_alive, finish=finish)


def _settings(env: Any) -> Settings:
    """Read the settings from the Worker's variables and secrets, which have the names of environment variables."""
    for name in Object.keys(env):
        value = getattr(env, name)
        if isinstance(value, str):
            os.environ[name] = value
    return Settings(_env_file=None, **_CHOSEN_HERE)  # type: ignore[call-arg]


def _signer(settings: Settings) -> PutSigner | None:
    """Return what signs uploads straight to the bucket, if the secrets of an R2 API token are set."""
    if settings.r2_access_key_id is None and settings.r2_secret_access_key is None:
        return None
    return PutSigner(
        endpoint_url=_required(settings.r2_endpoint_url, "S3SEG_R2_ENDPOINT_URL"),
        bucket=_required(settings.r2_bucket, "S3SEG_R2_BUCKET"),
        access_key_id=_required(settings.r2_access_key_id, "S3SEG_R2_ACCESS_KEY_ID"),
        secret_access_key=_required(settings.r2_secret_access_key, "S3SEG_R2_SECRET_ACCESS_KEY"),
    )


def _pages(settings: Settings, signer: PutSigner | None) -> Sequence[Route]:
    if not settings.playground:
        return ()
    bucket = settings.r2_endpoint_url if signer else None  # the page may send pictures there
    return playground_routes(public_base=settings.public_base_url, storage=[bucket] if bucket else [])


def _notifier(settings: Settings, transport: FetchTransport) -> WorkerNotifier:
    if settings.api_secret_key is None:
        return MemoryNotifier()  # nobody waits on it: workers find tasks by polling
    return HttpNotifier(
        settings.gpu_url,
        api_key=settings.api_secret_key.get_secret_value(),
        request_id=lambda: bound_fields().get("request_id"),
        timeout_s=_WAKE_UP_S,
        transport=transport,
    )


def _required(value: Any, name: str) -> Any:
    if is_nothing(value):
        raise ConfigurationError(f"the Worker needs {name}, which is not set; see deploy/cloudflare/wrangler.jsonc")
    return value


def _log_to_console() -> None:
    handler = ConsoleHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("INFO")
    logging.getLogger("httpx").setLevel("WARNING")
