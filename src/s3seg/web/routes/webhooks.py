"""Webhooks of the caller: create, list, delete, and their deliveries."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import DeletedResponse
from s3seg.api.webhooks import (
    WebhookDeliveriesResponse,
    WebhookDeliveryResponse,
    WebhookRequest,
    WebhookResponse,
    WebhooksResponse,
)
from s3seg.edge import Edge
from s3seg.tasks.limits import Action
from s3seg.tasks.webhooks import Delivery, Webhook
from s3seg.web.envelope import ID_FORMATS, RATE_HEADERS, USER_ERRORS, enveloped, success
from s3seg.web.operations import Operation
from s3seg.web.validation import read_json


class WebhookRoutes:
    """Everything under /api/v1/webhooks and /api/v1/webhook-deliveries."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/webhooks",
                handler=self.list,
                action=Action.RESULTS,
                summary="List webhooks",
                responses={200: enveloped(WebhooksResponse, "All webhooks", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="POST",
                path="/api/v1/webhooks",
                handler=self.create,
                action=Action.RESULTS,
                summary="Have an address told when a task ends",
                description="Deliveries are signed by the scheme of Standard Webhooks, and sent for a day.",
                body=WebhookRequest,
                responses={201: enveloped(WebhookResponse, "Created", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST", "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="DELETE",
                path="/api/v1/webhooks/{webhook_id}",
                handler=self.delete,
                action=Action.RESULTS,
                summary="Delete a webhook and its deliveries",
                path_formats=ID_FORMATS,
                responses={200: enveloped(DeletedResponse, "Deleted", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="GET",
                path="/api/v1/webhook-deliveries",
                handler=self.deliveries,
                action=Action.RESULTS,
                summary="List the latest deliveries, newest first",
                responses={200: enveloped(WebhookDeliveriesResponse, "Up to 50 deliveries", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
            Operation(
                method="POST",
                path="/api/v1/webhook-deliveries/{delivery_id}/replay",
                handler=self.replay,
                action=Action.RESULTS,
                summary="Send a delivery again, with the same id",
                responses={200: enveloped(WebhookDeliveryResponse, "It is sent again", RATE_HEADERS)},
                errors=(*USER_ERRORS, "NOT_FOUND"),
                tag="additions",
            ),
        )

    async def list(self, request: Request) -> Response:
        """Return the caller's webhooks."""
        found = await self._edge.webhooks.list_webhooks(request.user)
        return success(request, WebhooksResponse(webhooks=[_webhook(webhook) for webhook in found]))

    async def create(self, request: Request) -> Response:
        """Create a webhook."""
        body = await read_json(request, WebhookRequest)
        return success(request, _webhook(await self._edge.create_webhook(request.user, body.url)), status=201)

    async def delete(self, request: Request) -> Response:
        """Delete a webhook."""
        webhook_id = request.path_params["webhook_id"]
        await self._edge.webhooks.delete_webhook(request.user, webhook_id)
        return success(request, DeletedResponse(id=webhook_id))

    async def deliveries(self, request: Request) -> Response:
        """Return the caller's latest deliveries."""
        found = await self._edge.webhooks.list_deliveries(request.user)
        return success(request, WebhookDeliveriesResponse(deliveries=[_delivery(one) for one in found]))

    async def replay(self, request: Request) -> Response:
        """Send a delivery again."""
        delivery = await self._edge.webhooks.replay(request.user, request.path_params["delivery_id"])
        return success(request, _delivery(delivery))


def _webhook(webhook: Webhook) -> WebhookResponse:
    return WebhookResponse(
        id=webhook.webhook_id, url=webhook.url, created_at=webhook.created_at, secret=webhook.secret or None
    )


def _delivery(delivery: Delivery) -> WebhookDeliveryResponse:
    return WebhookDeliveryResponse(
        id=delivery.delivery_id,
        webhook_id=delivery.webhook_id,
        task_id=delivery.task_id,
        status=delivery.status,
        attempts=delivery.attempts,
        next_attempt_at=delivery.next_attempt_at,
        last_error=delivery.last_error,
        created_at=delivery.created_at,
    )
