"""What a webhook is sent, and the keys that sign it."""

from __future__ import annotations

import base64
import json
import secrets

from s3seg.tasks.model import Task, TaskStatus


def new_secret() -> str:
    """Return a new signing key in the form of Standard Webhooks: ``whsec_`` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def new_delivery_id() -> str:
    """Return a new id of a delivery."""
    return f"msg_{secrets.token_hex(16)}"


def payload_of(task: Task) -> str:
    """Return the JSON text that tells of a task that has ended. The triggers of the databases write the same fields."""
    data: dict[str, str] = {"task_id": task.task_id, "status": task.status.value}
    if task.status == TaskStatus.DONE:
        data["result_id"] = task.task_id
    if task.error_message is not None:
        data["error_message"] = task.error_message
    ended_at = task.updated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": f"task.{task.status.value}", "timestamp": ended_at, "data": data})
