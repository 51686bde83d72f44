"""The caller's account: tier, credits and limits; all that it has; and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from s3seg.api.additions import DeleteAccountQuery, DeletedAccountResponse, ExportQuery, LimitsResponse, MeResponse
from s3seg.edge import Edge
from s3seg.errors import AuthInvalidError
from s3seg.tasks.limits import Action, RateTable
from s3seg.tasks.retention import KEPT_OF_ACCOUNTS
from s3seg.web.envelope import RATE_HEADERS, USER_ERRORS, enveloped, success
from s3seg.web.errors import rate_headers
from s3seg.web.operations import Operation, ResponseSpec
from s3seg.web.validation import read_query

_TAR = "application/x-tar"


class AccountRoutes:
    """Everything under /api/v1/me.

    Args:
        edge: The use cases.
        rates: The rate limits to report, by tier.
    """

    def __init__(self, edge: Edge, rates: RateTable) -> None:
        self._edge = edge
        self._rates = rates

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/me",
                handler=self.get,
                action=Action.RESULTS,
                summary="Get tier, credits and limits",
                responses={200: enveloped(MeResponse, "The account", RATE_HEADERS)},
                errors=USER_ERRORS,
                tag="additions",
            ),
            Operation(
                method="DELETE",
                path="/api/v1/me",
                handler=self.delete,
                action=None,  # counted by the handler, since a repeat is answered although the account is closed
                summary="Delete the account and all that it has, for ever; safe to repeat",
                description=(
                    "Tokens of the account are refused from then on. Unfinished tasks are cancelled and refunded, "
                    "webhooks and their secrets are removed at once, images and results within minutes."
                ),
                query=DeleteAccountQuery,
                responses={202: enveloped(DeletedAccountResponse, "The account is closed", RATE_HEADERS)},
                errors=(*USER_ERRORS, "INVALID_REQUEST"),
                tag="additions",
            ),
            Operation(
                method="GET",
                path="/api/v1/me/export",
                handler=self.export,
                action=Action.RESULTS,
                summary="Get all that the account has as a tar archive",
                description=(
                    "Images, results with their masks, projects, concepts, webhooks without their secrets, and the "
                    "history of the credits. If the connection is lost, ask again with `after`, the `cursor` in the "
                    "last image.json or result.json before the item that is incomplete, and append the answer. The "
                    "last file of a whole archive is complete.json. One archive at a time."
                ),
                query=ExportQuery,
                responses={
                    200: ResponseSpec(description="The archive", content_type=_TAR, headers=RATE_HEADERS),
                },
                errors=(*USER_ERRORS, "INVALID_REQUEST"),
                tag="additions",
            ),
        )

    async def get(self, request: Request) -> Response:
        """Return the caller's account."""
        account = await self._edge.tasks.account(request.user)
        response = MeResponse(
            user_id=account.user_id,
            tier=account.tier,
            credits=account.credits,
            limits=LimitsResponse.of(dict(self._rates[account.tier])),
            retention_s=account.retention_s,
        )
        return success(request, response)

    async def delete(self, request: Request) -> Response:
        """Close the caller's account."""
        rate = None
        with contextlib.suppress(AuthInvalidError):  # it is closed already
            rate = await self._edge.rate_limits.count(request.user, Action.RESULTS)
        confirm = read_query(request, DeleteAccountQuery).confirm
        deleted_at = await self._edge.delete_account(request.user, confirm=confirm)
        response = DeletedAccountResponse(id=request.user.user_id, deleted_at=deleted_at, kept=list(KEPT_OF_ACCOUNTS))
        return success(request, response, status=202, headers=rate_headers(rate))

    async def export(self, request: Request) -> Response:
        """Stream the archive."""
        query = read_query(request, ExportQuery)
        headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="s3seg-export.tar"'}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=_TAR)
        chunks = self._edge.export(request.user, after=query.after)
        return StreamingResponse(chunks, media_type=_TAR, headers=headers)
