"""Converts JSON rows of PostgREST to values of the domain."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Attempts, Task, TaskStatus
from s3seg.tasks.records import Account, Concept, LedgerEntry, Project, StoredImage

Row = Mapping[str, Any]


def canonical_uuid(text: str) -> str | None:
    """Return ``text`` if it is a UUID in canonical form, or else None; no row has such an id."""
    try:
        return text if str(uuid.UUID(text)) == text else None
    except ValueError:
        return None


def moment(text: str) -> datetime:
    """Convert a timestamp of PostgreSQL to a datetime in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def task_of(row: Row) -> Task:
    """Convert a row to a task, with its lease if the row contains one."""
    claimed = row.get("attempt")
    return Task(
        task_id=row["id"],
        user_id=row["user_id"],
        project_id=row["project_id"],
        image_id=row["image_id"],
        source_image_url=row["source_image_url"],
        prompts=tuple(row["text_prompts"]),
        status=TaskStatus(row["status"]),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        deadline=moment(row["deadline"]),
        mask_image_url=row["mask_image_url"],
        labels=tuple(row["labels"]),
        metadata=row["metadata"],
        object_keys=tuple(sorted(row["object_keys"])),
        error_code=row["error_code"],
        error_message=row["error_message"],
        visual=row["visual"],
        request_id=row["request_id"],
        keep_s=row["keep_s"],
        attempts=Attempts(
            number=claimed,
            released=row["released"],
            worker=row["worker"],
            expires_at=moment(row["expires_at"]),
        )
        if claimed
        else Attempts(),
    )


def image_of(row: Row) -> StoredImage:
    """Convert a row to a registered image."""
    return StoredImage(
        image_id=row["id"],
        user_id=row["user_id"],
        project_id=row["project_id"],
        object_key=row["object_key"],
        image_url=row["image_url"],
        content_type=row["content_type"],
        size_bytes=row["size_bytes"],
        width=row["width"],
        height=row["height"],
        created_at=moment(row["created_at"]),
        expires_at=None if row["expires_at"] is None else moment(row["expires_at"]),
    )


def project_of(row: Row) -> Project:
    """Convert a row to a project."""
    return Project(
        project_id=row["id"],
        user_id=row["user_id"],
        name=row["name"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
    )


def concept_of(row: Row) -> Concept:
    """Convert a row to a concept."""
    return Concept(
        concept_id=row["id"],
        user_id=row["user_id"],
        name=row["name"],
        definition=row["definition"],
        created_at=moment(row["created_at"]),
    )


def account_of(row: Row) -> Account:
    """Convert a row to an account."""
    return Account(
        user_id=row["user_id"],
        tier=Tier(row["tier"]),
        credits=row["credits"],
        retention_s=row.get("retention_s"),
    )


def ledger_entry_of(row: Row) -> LedgerEntry:
    """Convert a row to a ledger entry."""
    return LedgerEntry(
        user_id=row["user_id"],
        delta=row["delta"],
        reason=row["reason"],
        task_id=row["task_id"],
        created_at=moment(row["created_at"]),
    )
