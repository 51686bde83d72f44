"""Learn from Supabase Realtime when tasks change, in a thread of its own.

A message of Realtime only makes the client read the task from the service. If Realtime is silent or does not work, the
client polls, so no task that has ended is missed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from s3seg.errors import ConfigurationError

if TYPE_CHECKING:
    from s3seg.client.signin.discovery import Project

_log = logging.getLogger(__name__)

_TABLE = "segmentation_results"
_READY_WITHIN_S = 30.0
_LOOK_AT_TOKEN_EVERY_S = 20.0
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0


class TaskChanges:
    """Changes of the tasks of one user. Safe to share between threads.

    Row-level security decides which rows Realtime reports: the user's own. The filter only reduces its work.

    Args:
        project: The Supabase project.
        user_id: Id of the user.
        token: Returns a valid access token; may wait on the network.

    Raises:
        ConfigurationError: The package ``realtime`` is not installed.
    """

    def __init__(self, project: Project, user_id: str, token: Callable[[], str]) -> None:
        if find_spec("realtime") is None:
            raise ConfigurationError("Realtime needs the package realtime; run: pip install 's3seg[cloud]'")
        self._project = project
        self._user_id = user_id
        self._token = token
        self._guard = threading.Lock()
        self._waiting: dict[str, Future[None]] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._closed = False
        self.is_live = False
        """Whether Realtime reports changes at the moment."""

    def next(self, task_id: str) -> Future[None]:
        """Return a future that is done when a task has changed, or when Realtime begins or stops to report changes.

        Ask for it, then read the task, then wait: a change in between is not missed.
        """
        with self._guard:
            return self._waiting.setdefault(task_id, Future())

    def forget(self, task_id: str) -> None:
        """Forget a task that one caller no longer waits for; other callers that wait for it read it once more."""
        with self._guard:
            waiting = self._waiting.pop(task_id, None)
        if waiting is not None:
            waiting.set_result(None)

    def start(self) -> None:
        """Connect in the background; does nothing if it was called before."""
        with self._guard:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="s3seg realtime", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Disconnect."""
        with self._guard:
            self._closed = True
            thread, loop, closing = self._thread, self._loop, self._closing
            if loop is not None and closing is not None:
                loop.call_soon_threadsafe(closing.set)
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._listen_always())

    async def _listen_always(self) -> None:
        theirs = logging.getLogger("realtime")
        if not theirs.handlers:
            theirs.addHandler(logging.NullHandler())  # else its errors appear on standard error
        closing = asyncio.Event()
        with self._guard:
            self._loop, self._closing = asyncio.get_running_loop(), closing
            if self._closed:
                closing.set()
        retry_s = _FIRST_RETRY_S
        while not closing.is_set():
            try:
                await self._listen(closing)
            except Exception as err:  # whatever it is, the client polls
                _log.info("Realtime does not work, polling instead: %s: %.200s", type(err).__name__, err)
            retry_s = _FIRST_RETRY_S if self.is_live else min(2 * retry_s, _LAST_RETRY_S)
            self._set_live(False)
            await _first_of(closing, timeout_s=retry_s)
        with self._guard:
            self._loop = self._closing = None  # the loop ends with this function

    async def _listen(self, closing: asyncio.Event) -> None:
        """Subscribe, and report changes until the connection is lost or this is closed."""
        from realtime import AsyncRealtimeClient, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

        client = AsyncRealtimeClient(f"{self._project.url}/realtime/v1", self._project.key, auto_reconnect=False)
        ready, lost = asyncio.Event(), asyncio.Event()

        def on_system(payload: Any) -> None:
            # the reply to the join comes before the subscription exists; this comes after it
            if payload.extension == "postgres_changes":
                ready.set()

        def on_state(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            if state != RealtimeSubscribeStates.SUBSCRIBED:
                _log.info("Realtime: %s: %.200s", state.value, error)
                lost.set()

        token = await asyncio.to_thread(self._token)
        await client.set_auth(token)
        channel = client.channel("s3seg")
        channel.on_system(on_system).on_postgres_changes(
            RealtimePostgresChangesListenEvent.Update,
            self._changed,
            schema="public",
            table=_TABLE,
            filter=f"user_id=eq.{self._user_id}",
        )
        try:
            await channel.subscribe(on_state)
            await _first_of(ready, lost, closing, timeout_s=_READY_WITHIN_S)
            if not ready.is_set():
                return
            self._set_live(True)
            while not (lost.is_set() or closing.is_set()):
                await _first_of(lost, closing, timeout_s=_LOOK_AT_TOKEN_EVERY_S)
                current = await asyncio.to_thread(self._token)
                if current != token:
                    token = current
                    await client.set_auth(token)
        finally:
            await client.close()

    def _changed(self, payload: Any) -> None:
        record = payload["data"].get("record") or {}
        with self._guard:
            waiting = self._waiting.pop(str(record.get("id")), None)
        if waiting is not None:
            waiting.set_result(None)

    def _set_live(self, is_live: bool) -> None:
        """Wake all who wait, so that they read their tasks: this finds what changed while there was no subscription."""
        with self._guard:
            changed, self.is_live = self.is_live != is_live, is_live
            waiting = list(self._waiting.values()) if changed else []
            if changed:
                self._waiting.clear()
        for one in waiting:
            one.set_result(None)


async def _first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of some events is set, or for a number of seconds."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
