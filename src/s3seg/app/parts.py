"""The adapters that the settings choose.

A setting names an adapter: a built-in one, an entry point of an installed package in the group ``s3seg.<port>``
(such as ``s3seg.object_store``), or a dotted path ``package.module:factory``. The factory takes the `Settings`
and returns the adapter.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from s3seg.app.misspelt import warn_of_misspelt
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
from s3seg.tasks.private_files import warn_if_open_to_others
from s3seg.tasks.state_machine import Rules
from s3seg.tasks.webhooks import WebhookOutbox, Webhooks

if TYPE_CHECKING:
    from s3seg.adapters.local_auth import LocalKeys
    from s3seg.adapters.memory import MemoryTables
    from s3seg.adapters.revoked_tokens import RevokedTokens


class Parts:
    """The adapters that the settings choose, each made when it is first used.

    A process makes only those that it uses: an edge never uses `task_queue`, so it needs no key for it.

    Args:
        settings: Frozen settings; read from the environment if not given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._made: list[Part] = []
        warn_if_open_to_others(self.settings.data_dir)
        warn_of_misspelt(os.environ)

    @cached_property
    def objects(self) -> ObjectStore:
        """Stores images and masks."""
        return self._make("object_store", self.settings.object_store)

    @cached_property
    def task_store(self) -> TaskStore:
        """Tasks, images, projects and credits, as their owners may use them."""
        return self._make("task_store", self.settings.task_store)

    @cached_property
    def task_queue(self) -> TaskQueue:
        """Tasks, as workers may use them."""
        return self._make("task_queue", self.settings.task_queue or self.settings.task_store)

    @cached_property
    def webhooks(self) -> Webhooks | None:
        """Webhooks and deliveries, as their owners may use them; None beside a task store that has none."""
        return self._make_if_known("webhooks", self.settings.webhooks)

    @cached_property
    def webhook_outbox(self) -> WebhookOutbox | None:
        """Deliveries, as senders may use them; None beside a task store that has none."""
        return self._make_if_known("webhook_outbox", self.settings.webhook_outbox)

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts, as operators may use them."""
        return self._make("accounts", self.settings.accounts or self.settings.task_store)

    @cached_property
    def authenticator(self) -> Authenticator:
        """Verifies access tokens."""
        return self._make("authenticator", self.settings.authenticator)

    @cached_property
    def rate_limiter(self) -> RateLimiter:
        """Counts requests."""
        return self._make("rate_limiter", self.settings.rate_limiter or self._shared_limiter())

    @cached_property
    def notifier(self) -> WorkerNotifier:
        """Tells workers about new tasks; chosen by the setting ``inference``."""
        return self._make("inference", self.settings.inference)

    async def announce(self) -> None:
        """Tell the services that share the task store the settings of this edge, which they compare with their own."""
        from s3seg.adapters.sqlite import SqliteTaskStore

        if isinstance(self.task_store, SqliteTaskStore):
            await self.task_store.announce()

    async def aclose(self) -> None:
        """Close the adapters that were made, the last one first."""
        while self._made:
            await self._made.pop().aclose()

    def _shared_limiter(self) -> str:
        """The limiter in the database of the task store, if it has one; without limits there is nothing to share."""
        shared = self.settings.task_store
        return shared if ("rate_limiter", shared) in _BUILTIN and self.settings.rate_limits != "off" else "memory"

    def _make_if_known(self, port: str, chosen: str | None) -> Any:
        """Make the adapter that was chosen, or else the one in the database of the task store, if it has one."""
        if chosen is None and (port, self.settings.task_store) not in _BUILTIN:
            return None
        return self._make(port, chosen or self.settings.task_store)

    def _make(self, port: str, name: str) -> Any:
        builtin = _BUILTIN.get((port, name))
        try:
            part = builtin(self) if builtin is not None else _find_factory(port, name)(self.settings)
        except ModuleNotFoundError as err:
            raise ConfigurationError(
                f"{port}={name!r} needs the package {err.name}; run: pip install 's3seg[cloud]'"
            ) from err
        self._made.append(part)
        return part

    @cached_property
    def sqlite(self) -> dict[str, Any]:
        """What the SQLite adapters of a process share: one writer thread, one policy."""
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
        """What the in-memory adapters of a process share."""
        from s3seg.adapters.memory import MemoryTables

        settings = self.settings
        return MemoryTables(
            public_base=settings.public_base_url,
            rules=_rules(settings),
            rates=settings.rates,
            welcome_credits=settings.welcome_credits,
        )


def local_keys(settings: Settings) -> LocalKeys:
    """Return the key that signs and verifies the tokens of an installation without Supabase."""
    from s3seg.adapters.local_auth import LocalKeys

    return LocalKeys(settings.data_dir / "auth" / "signing-key.pem")


def revoked_tokens(settings: Settings) -> RevokedTokens:
    """Return the list of revoked tokens of an installation without Supabase."""
    from s3seg.adapters.revoked_tokens import RevokedTokens

    return RevokedTokens(settings.data_dir / "auth" / "revoked.json")


def _rules(settings: Settings) -> Rules:
    return Rules(
        max_attempts=settings.max_attempts,
        deadline_s=settings.task_deadline_s,
        retention_s=settings.retention_s,
    )


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


def _memory_webhooks(parts: Parts) -> Any:
    from s3seg.adapters.memory.webhooks import MemoryWebhooks

    return MemoryWebhooks(parts.memory)


def _sqlite_webhooks(parts: Parts) -> Any:
    from s3seg.adapters.sqlite.webhooks import SqliteWebhooks

    return SqliteWebhooks(**parts.sqlite)


def _supabase_webhooks(parts: Parts) -> Webhooks:
    from s3seg.adapters.supabase.webhooks import SupabaseWebhooks

    return SupabaseWebhooks(_supabase_rest(parts.settings, "supabase_publishable_key"))


def _supabase_webhook_outbox(parts: Parts) -> WebhookOutbox:
    from s3seg.adapters.supabase.webhooks import SupabaseWebhookOutbox

    return SupabaseWebhookOutbox(_supabase_rest(parts.settings, "supabase_secret_key"))


def _local_auth(parts: Parts) -> Authenticator:
    from s3seg.adapters.jwt import JwtAuthenticator
    from s3seg.adapters.local_auth import ISSUER

    revoked_at = revoked_tokens(parts.settings).revoked_at
    return JwtAuthenticator(local_keys(parts.settings), issuers=[ISSUER], revoked_at=revoked_at)


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
            "task_store='supabase' passes tokens on to Supabase, which does not accept those of "
            "S3SEG_AUTHENTICATOR=local: set S3SEG_AUTHENTICATOR=supabase"
        )
    rest = _supabase_rest(settings, "supabase_publishable_key")
    return SupabaseTaskStore(rest, public_base=settings.public_base_url, realtime=settings.supabase_realtime)


def _supabase_limiter(parts: Parts) -> RateLimiter:
    from s3seg.adapters.supabase.limiter import SupabaseRateLimiter

    rest = _supabase_rest(parts.settings, "supabase_publishable_key")
    return SupabaseRateLimiter(rest, public_base=parts.settings.public_base_url)


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
        raise ConfigurationError(f"{why} needs S3SEG_{name.upper()}, which is not set: {_described(name)}")
    return value


def _described(name: str) -> str:
    return Settings.model_fields[name].description or ""


def _memory_limiter(parts: Parts) -> RateLimiter:
    from s3seg.adapters.memory import MemoryRateLimiter

    return MemoryRateLimiter(table=parts.settings.rates)


def _sqlite_limiter(parts: Parts) -> RateLimiter:
    from s3seg.adapters.sqlite import COUNTS, Database, SqliteRateLimiter

    settings = parts.settings
    path = settings.data_dir / "rate-limits.sqlite3"
    database = Database(path, schema=COUNTS, busy_timeout_s=settings.database_timeout_s)
    return SqliteRateLimiter(database, table=settings.rates)


def _memory_notifier(parts: Parts) -> WorkerNotifier:
    from s3seg.adapters.memory import MemoryNotifier

    return MemoryNotifier()


def _http_notifier(parts: Parts) -> WorkerNotifier:
    from s3seg.adapters.http_notifier import HttpNotifier
    from s3seg.web.logs import bound_fields

    settings = parts.settings
    if settings.api_secret_key is None:
        raise ConfigurationError(
            "inference='http' needs the gpu service's key: set API_SECRET_KEY to the same value in both services"
        )
    return HttpNotifier(
        settings.gpu_url,
        api_key=settings.api_secret_key.get_secret_value(),
        request_id=lambda: bound_fields().get("request_id"),
    )


# the modules of an adapter are imported only when it is chosen
_BUILTIN: dict[tuple[str, str], Callable[[Parts], Part]] = {
    ("object_store", "files"): _files,
    ("object_store", "memory"): _memory_objects,
    ("task_store", "sqlite"): _sqlite_tasks,
    ("task_store", "memory"): _memory_tasks,
    ("task_queue", "sqlite"): _sqlite_queue,
    ("task_queue", "memory"): _memory_queue,
    ("accounts", "sqlite"): _sqlite_accounts,
    ("accounts", "memory"): _memory_accounts,
    ("webhooks", "sqlite"): _sqlite_webhooks,
    ("webhooks", "memory"): _memory_webhooks,
    ("webhooks", "supabase"): _supabase_webhooks,
    ("webhook_outbox", "sqlite"): _sqlite_webhooks,
    ("webhook_outbox", "memory"): _memory_webhooks,
    ("webhook_outbox", "supabase"): _supabase_webhook_outbox,
    ("authenticator", "local"): _local_auth,
    ("object_store", "r2"): _r2,
    ("task_store", "supabase"): _supabase_tasks,
    ("task_queue", "supabase"): _supabase_queue,
    ("accounts", "supabase"): _supabase_accounts,
    ("authenticator", "supabase"): _supabase_auth,
    ("rate_limiter", "memory"): _memory_limiter,
    ("rate_limiter", "sqlite"): _sqlite_limiter,
    ("rate_limiter", "supabase"): _supabase_limiter,
    ("inference", "memory"): _memory_notifier,
    ("inference", "http"): _http_notifier,
}


def _find_factory(port: str, name: str) -> Callable[[Settings], Part]:
    """Find the factory of an adapter that is not built in: by entry point, else by dotted path."""
    offered = entry_points(group=f"s3seg.{port}", name=name)
    try:
        for entry in offered:
            return entry.load()
        module, colon, attribute = name.partition(":")
        if colon:
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise ConfigurationError(f"{port}={name!r} cannot be loaded: {err}") from err
    builtin = sorted(known for kind, known in _BUILTIN if kind == port)
    raise ConfigurationError(
        f"unknown adapter {port}={name!r}: choose one of {', '.join(builtin)}, install a package that provides it as "
        f"an entry point in the group 's3seg.{port}', or use 'package.module:factory'"
    )
