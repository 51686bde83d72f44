"""Requests and responses of webhooks, which the original contract does not have."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from s3seg.api.fields import Omissible, RequestModel, ResponseModel, UuidStr
from s3seg.tasks.webhooks import MAX_URL_CHARS, DeliveryStatus


class WebhookRequest(RequestModel):
    """Body of POST /api/v1/webhooks."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARS, description="https, at a public address")]


class WebhookResponse(ResponseModel):
    """A webhook."""

    id: UuidStr
    url: str
    created_at: datetime
    secret: Annotated[
        Omissible[str], Field(description="Signs deliveries (Standard Webhooks); told once, when it is created")
    ]


class WebhooksResponse(ResponseModel):
    """All webhooks of the caller, oldest first."""

    webhooks: list[WebhookResponse]


class WebhookDeliveryResponse(ResponseModel):
    """A message to a webhook about a task that has ended."""

    id: Annotated[str, Field(description="As in the header webhook-id, the same at each attempt")]
    webhook_id: UuidStr
    task_id: UuidStr
    status: DeliveryStatus
    attempts: Annotated[int, Field(ge=0)]
    next_attempt_at: Annotated[Omissible[datetime], Field(description="Absent once it was received or given up")]
    last_error: Annotated[Omissible[str], Field(description="Why the last attempt failed, for people")]
    created_at: datetime


class WebhookDeliveriesResponse(ResponseModel):
    """The latest deliveries of the caller, newest first."""

    deliveries: list[WebhookDeliveryResponse]
