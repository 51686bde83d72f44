"""Removing what has ended, and what deleted accounts have, in memory."""

from __future__ import annotations

from datetime import datetime

from s3seg.adapters.memory.tables import MemoryTables
from s3seg.tasks import state_machine
from s3seg.tasks.limits import Tier
from s3seg.tasks.records import Account
from s3seg.tasks.retention import Collection


def close(tables: MemoryTables, user_id: str) -> datetime:
    """Mark an account as deleted, cancel its tasks, and remove its webhooks; return when it was first marked."""
    if user_id not in tables.closed:
        webhooks = {webhook_id for webhook_id, (owner, _) in tables.webhooks.items() if owner == user_id}
        for delivery in [one for one in tables.deliveries.values() if one.webhook_id in webhooks]:
            del tables.deliveries[delivery.delivery_id]
        for webhook_id in webhooks:
            del tables.webhooks[webhook_id]
        tables.accounts.setdefault(user_id, Account(user_id=user_id, tier=Tier.FREE, credits=0))
        for task in [task for task in tables.tasks.values() if task.user_id == user_id]:
            tables.save(task, state_machine.cancel(task, now=tables.now()))
        tables.submits.pop(user_id, None)
        tables.closed[user_id] = tables.now()
    return tables.closed[user_id]


def collect(tables: MemoryTables, *, limit: int) -> Collection:
    """Remove up to ``limit`` images and tasks whose time is over or whose account was deleted."""
    now, closed = tables.now(), tables.closed.keys() - tables.emptied
    results = [task for task in tables.tasks.values() if task.expired(now) or task.user_id in closed][:limit]
    for task in results:
        delete_task(tables, task.task_id)
    in_use = {task.image_id for task in tables.tasks.values() if not task.ended}
    images = [
        image
        for image in tables.images.values()
        if image.image_id not in in_use and (image.expired(now) or image.user_id in closed)
    ][:limit]
    for image in images:
        tables.forget_image(image.image_id)
    for rows in (tables.projects, tables.concepts):
        for row_id in [row_id for row_id, row in rows.items() if row.user_id in closed]:
            del rows[row_id]
    keys = [key for task in results for key in task.object_keys]
    keys += [image.object_key for image in images]
    return Collection(images=len(images), results=len(results), object_keys=tuple(keys))


def delete_task(tables: MemoryTables, task_id: str) -> None:
    """Remove a task, so that its idempotency key can be used again."""
    for key in [key for key, (_, known) in tables.idempotency_keys.items() if known == task_id]:
        del tables.idempotency_keys[key]
    del tables.tasks[task_id]
