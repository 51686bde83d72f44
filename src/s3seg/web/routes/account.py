"""The caller's account: tier, credits and limits."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import LimitsResponse, MeResponse
from s3seg.edge import Edge
from s3seg.tasks.limits import Action, RateTable
from s3seg.web.envelope import RATE_HEADERS, USER_ERRORS, enveloped, success
from s3seg.web.operations import Operation


class AccountRoutes:
    """GET /api/v1/me.

    Args:
        edge: The use cases.
        rates: The rate limits to report, by tier.
    """

    def __init__(self, edge: Edge, rates: RateTable) -> None:
        self._tasks = edge.tasks
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
        )

    async def get(self, request: Request) -> Response:
        """Return the caller's account."""
        account = await self._tasks.account(request.user)
        response = MeResponse(
            user_id=account.user_id,
            tier=account.tier,
            credits=account.credits,
            limits=LimitsResponse.of(dict(self._rates[account.tier])),
        )
        return success(request, response)
