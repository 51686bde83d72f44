"""What a service does in the background: recurring jobs and the sending of webhooks, if it may do them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from s3seg.app.parts import Parts
from s3seg.errors import ConfigurationError

if TYPE_CHECKING:
    from s3seg.tasks.maintenance import Removals


@asynccontextmanager
async def maintenance(parts: Parts, removals: Removals | None = None) -> AsyncIterator[None]:
    """Do the recurring jobs and send webhooks in the background while the ``async with`` block runs.

    A process that may not end tasks and see all users' objects, such as an edge without the secret key of Supabase,
    does none of it.

    Args:
        parts: The adapters.
        removals: Counts what the jobs remove.
    """
    from s3seg.adapters.webhook_sender import WebhookSender
    from s3seg.tasks.maintenance import Job, Maintenance, garbage_collection, reaping, removing_ended
    from s3seg.tasks.webhook_delivery import WebhookDelivery

    settings, jobs = parts.settings, list[Job]()
    try:
        if settings.reap_every_s:
            every_s = settings.reap_every_s
            jobs.append(reaping(parts.task_queue, every_s=every_s))
            jobs.append(removing_ended(parts.objects, parts.accounts, every_s=every_s, removals=removals))
        if settings.gc_every_h:
            jobs.append(
                garbage_collection(parts.objects, parts.accounts, every_s=settings.gc_every_h * 3600, removals=removals)
            )
        loop = Maintenance(parts.accounts, jobs)
        outbox = parts.webhook_outbox
    except ConfigurationError:
        yield
        return
    sender = WebhookSender(allow_private=settings.webhooks_to_private_addresses)
    delivery = None if outbox is None else WebhookDelivery(outbox, sender)
    loop.start()
    if delivery is not None:
        delivery.start()
    try:
        yield
    finally:
        if delivery is not None:
            await delivery.aclose()
        await sender.aclose()
        await loop.aclose()
