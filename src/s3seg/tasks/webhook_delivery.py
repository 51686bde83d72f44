"""The loop that sends webhooks, in the services that may see the deliveries of all users."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol

from s3seg.errors import UnavailableError
from s3seg.tasks.webhooks import DueDelivery, WebhookOutbox, pause_after

_log = logging.getLogger(__name__)
_AT_ONCE = 16
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

    Args:
        outbox: The deliveries.
        sender: Sends them.
        idle_s: Average pause between two looks while there is nothing to send, in seconds.
    """

    def __init__(self, outbox: WebhookOutbox, sender: Sender, *, idle_s: float = _IDLE_S) -> None:
        self._outbox = outbox
        self._sender = sender
        self._idle_s = idle_s
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
        """Send what is due, and return how many deliveries there were."""
        due = await self._outbox.claim_deliveries(limit=_AT_ONCE, lease_s=_LEASE_S)
        await asyncio.gather(*(self._send(delivery) for delivery in due))
        return len(due)

    async def _send(self, delivery: DueDelivery) -> None:
        why = await self._try(delivery)
        if why is None:
            await self._outbox.delivered(delivery.delivery_id)
            return
        pause = pause_after(delivery.attempts)
        if pause is not None:
            pause *= random.uniform(1, 1.25)  # noqa: S311 (not for security)
        await self._outbox.not_delivered(delivery.delivery_id, why, retry_after_s=pause)

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
        while True:
            try:
                sent = await self.send_due()
            except Exception as err:
                _log.warning("webhooks cannot be sent now, and will be later: %s", err)
                sent = 0
            if sent < _AT_ONCE:
                await asyncio.sleep(self._idle_s * random.uniform(0.5, 1.5))  # noqa: S311
