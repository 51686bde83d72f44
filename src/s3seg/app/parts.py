"""The adapters that the settings choose.

An adapter is chosen by name in the settings: one of ours, one that an installed package offers as an entry
point in the group ``s3seg.<port>`` (such as ``s3seg.object_store``), or a dotted path
``package.module:factory``. The factory takes the `Settings` and returns the adapter.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from s3seg.app.settings import Settings
from s3seg.errors import ConfigurationError
from s3seg.tasks.ports import (
    Accounts,
    Authenticator,
    ObjectStore,
    Part,
    RateLimiter,
    TaskQueue,
    TaskStore,
    WorkerNotifier,
)
from s3seg.tasks.state_machine import Rules

if TYPE_CHECKING:
    from s3seg.adapters.local_auth import LocalKeys
    from s3seg.adapters.memory import MemoryTables


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
    def inference(self) -> WorkerNotifier:
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
    from s3seg.adapters.supabase.rest import Rest

    url = _required(settings, "supabase_url", "task_store='supabase'")
    chosen = _required(settings, key, "task_store='supabase'")
    return Rest(url, chosen, timeout_s=settings.database_timeout_s)


def _supabase_tasks(parts: Parts) -> TaskStore:
    from s3seg.adapters.supabase.tasks import SupabaseTaskStore

    settings = parts.settings
    if settings.authenticator == "local":
        raise ConfigurationError(
            "S3SEG_AUTHENTICATOR is local, and task_store='supabase' passes tokens on to a database that does not know "
            "these: set it to supabase"
        )
    rest = _supabase_rest(settings, "supabase_publishable_key")
    return SupabaseTaskStore(rest, public_base=settings.public_base_url)


def _supabase_queue(parts: Parts) -> TaskQueue:
    from s3seg.adapters.supabase.work import SupabaseTaskQueue

    settings = parts.settings
    return SupabaseTaskQueue(_supabase_rest(settings, "supabase_secret_key"), public_base=settings.public_base_url)


def _supabase_accounts(parts: Parts) -> Accounts:
    from s3seg.adapters.supabase.work import SupabaseAccounts

    settings = parts.settings
    return SupabaseAccounts(_supabase_rest(settings, "supabase_secret_key"), public_base=settings.public_base_url)


def _supabase_auth(parts: Parts) -> Authenticator:
    from s3seg.adapters.jwt import JwtAuthenticator
    from s3seg.adapters.supabase.auth import SupabaseKeys

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


def _memory_inference(parts: Parts) -> WorkerNotifier:
    from s3seg.adapters.memory import MemoryNotifier

    return MemoryNotifier()


def _http_inference(parts: Parts) -> WorkerNotifier:
    from s3seg.adapters.http_notifier import HttpNotifier
    from s3seg.web.logs import bound_fields

    settings = parts.settings
    if settings.api_secret_key is None:
        raise ConfigurationError(
            "inference='http' needs the gpu service's key; set API_SECRET_KEY to the same value in both services"
        )
    return HttpNotifier(
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
