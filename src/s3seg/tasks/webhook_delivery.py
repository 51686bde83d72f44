"""The loop that sends webhooks, in the services that may see the deliveries of all users."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from s3seg.errors import UnavailableError
from s3seg.tasks.webhooks import DueDelivery, WebhookOutbox, pause_after

_log = logging.getLogger(__name__)
_BATCH, _AT_ONCE = 16, 64
_OF_A_WEBHOOK = 4
_PATIENCE_S = 10.0
_LEASE_S = 120.0
_IDLE_S = 2.0


class Sender(Protocol):
    """Sends a delivery, or raises `UnavailableError`, whose message is for the webhook's owner."""

    async def send(self, delivery: DueDelivery) -> None:
        """Send it."""
        ...


class WebhookDelivery:
    """Claims deliveries that are due, sends them, and records how it went, until it is closed.

    A process that dies leaves what it has claimed to others, who send it again after the lease: receivers get each
    delivery at least once, and know repeats by their id.

    Slow receivers must not delay the deliveries of others. So the next batch is claimed while they have not answered, a
    webhook is sent at most 4 deliveries at once, and one that has waited for its turn for ``patience_s`` is treated as
    not received, and tried again after the usual pause.

    Args:
        outbox: The deliveries.
        sender: Sends them.
        idle_s: Average pause between two looks while there is nothing to send, in seconds.
        patience_s: Longest time that a delivery waits for others to the same webhook, in seconds.
    """

    def __init__(
        self, outbox: WebhookOutbox, sender: Sender, *, idle_s: float = _IDLE_S, patience_s: float = _PATIENCE_S
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._idle_s = idle_s
        self._patience_s = patience_s
        self._claimed = 0
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the loop."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop the loop; deliveries that are being sent are sent again later."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def send_due(self) -> int:
        """Send a batch of what is due, and return how many deliveries there were."""
        due = await self._claim()
        await self._send_all(due)
        return len(due)

    async def _claim(self) -> Sequence[DueDelivery]:
        room = min(_BATCH, _AT_ONCE - self._claimed)
        due = await self._outbox.claim_deliveries(limit=room, lease_s=_LEASE_S) if room > 0 else []
        self._claimed += len(due)
        return due

    async def _send_all(self, due: Sequence[DueDelivery]) -> None:
        await asyncio.gather(*(self._send(delivery) for delivery in due))

    async def _send(self, delivery: DueDelivery) -> None:
        try:
            await self._settle(delivery, await self._try_in_turn(delivery))
        except Exception as err:
            _log.warning("how a webhook was received cannot be recorded, so it will be sent again: %s", err)
        finally:
            self._claimed -= 1

    async def _settle(self, delivery: DueDelivery, why: str | None) -> None:
        if why is None:
            await self._outbox.delivered(delivery.delivery_id)
            return
        pause = pause_after(delivery.attempts)
        if pause is not None:
            pause *= random.uniform(1, 1.25)  # noqa: S311 (not for security)
        await self._outbox.not_delivered(delivery.delivery_id, why, retry_after_s=pause)

    async def _try_in_turn(self, delivery: DueDelivery) -> str | None:
        """Send a delivery when others to the same webhook leave room for it; return as `_try`."""
        turns = self._turns.setdefault(delivery.secret, asyncio.Semaphore(_OF_A_WEBHOOK))  # each webhook has its own
        try:
            async with asyncio.timeout(self._patience_s):
                await turns.acquire()
        except TimeoutError:
            return f"it was not sent: it waited {self._patience_s:g} seconds for others to the same webhook"
        try:
            return await self._try(delivery)
        finally:
            turns.release()

    async def _try(self, delivery: DueDelivery) -> str | None:
        """Send a delivery; return why it was not received, in words for its owner, or None if it was."""
        try:
            await self._sender.send(delivery)
        except UnavailableError as err:
            return str(err)
        except Exception:  # a delivery that no sender can send must neither stop the others nor stay due for ever
            _log.exception("a webhook could not be sent", extra={"delivery_id": delivery.delivery_id})
            return "it could not be sent"
        return None

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                due: Sequence[DueDelivery] = ()
                try:
                    due = await self._claim()
                except Exception as err:
                    _log.warning("webhooks cannot be sent now, and will be later: %s", err)
                batch = group.create_task(self._send_all(due))
                if len(due) < _BATCH:
                    await asyncio.sleep(self._idle_s * random.uniform(0.5, 1.5))  # noqa: S311
                else:
                    await asyncio.wait([batch], timeout=self._idle_s)
