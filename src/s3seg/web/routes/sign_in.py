"""How users of this service sign in."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from s3seg.api.additions import SignInResponse
from s3seg.web.envelope import enveloped, success
from s3seg.web.operations import Operation


class SignInRoutes:
    """GET /api/v1/auth, open to all.

    Args:
        sign_in: The answer.
    """

    def __init__(self, sign_in: SignInResponse) -> None:
        self._sign_in = sign_in

    def operations(self) -> Sequence[Operation]:
        """Return the table of these routes."""
        return (
            Operation(
                method="GET",
                path="/api/v1/auth",
                handler=self.get,
                summary="Get how to sign in",
                responses={200: enveloped(SignInResponse, "Where users get their tokens")},
                secured=False,
                tag="additions",
            ),
        )

    async def get(self, request: Request) -> Response:
        """Answer with what a client needs to sign a user in."""
        return success(request, self._sign_in)
