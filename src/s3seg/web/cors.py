"""CORS for the edge: which pages of other origins may call it, with preflights answered in the envelope."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from s3seg.api.envelope import ApiResponse
from s3seg.web.envelope import render_error
from s3seg.web.errors import RefusedRequestError, error_response


class EnvelopedCORSMiddleware(CORSMiddleware):
    """Starlette's middleware; the body of a preflight's answer has the envelope."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight: 200, or 400 with what the settings do not allow."""
        plain = super().preflight_response(request_headers)
        request_id = str(uuid.uuid4())
        if plain.status_code == 200:
            envelope = ApiResponse[dict[str, str]].ok({}, request_id=request_id, timestamp=datetime.now(UTC))
            response = Response(envelope.model_dump_json(), media_type="application/json")
        else:
            message = bytes(plain.body).decode("utf-8")
            response = render_error(error_response(RefusedRequestError(message, plain.status_code)), request_id)
        kept = {"content-length": response.headers["content-length"], "content-type": "application/json"}
        response.headers.update({**plain.headers, **kept, "X-Request-Id": request_id})
        return response
