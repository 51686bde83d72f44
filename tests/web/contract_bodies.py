"""Responses held against the contract's envelope."""

import re
import uuid
from datetime import datetime, timedelta

from s3seg.api.envelope import ApiResponse


def data_of(response, model, status=200):
    """The data of a success, after holding the whole response against the contract."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["success", "data", "error", "meta"]
    assert (body["success"], body["error"]) == (True, None)
    _check_meta(response)
    assert ApiResponse[model].model_validate_json(response.content).model_dump_json() == response.text
    return body["data"]


def error_of(response):
    """The status and code of an error, after holding the whole response against the contract."""
    body = response.json()
    assert list(body) == ["success", "data", "error", "meta"]
    assert (body["success"], body["data"]) == (False, None)
    assert list(body["error"]) == ["code", "message"]
    assert body["error"]["message"]
    _check_meta(response)
    return response.status_code, body["error"]["code"]


def _check_meta(response):
    meta = response.json()["meta"]
    assert set(meta) == {"request_id", "timestamp"}
    assert uuid.UUID(meta["request_id"]).version == 4
    assert response.headers["x-request-id"] == meta["request_id"]
    assert datetime.fromisoformat(meta["timestamp"]).utcoffset() == timedelta(0)


def but_for_ids(response):
    """Everything of a response but what differs from one request to the next."""
    body = re.sub(rb'"meta":.*', b"", response.content)
    headers = {name: value for name, value in response.headers.items() if name not in ("x-request-id", "ratelimit")}
    return response.status_code, headers, body


def require_valid_openapi(document):
    """Raise an error unless a document is a valid description in OpenAPI 3.1."""
    from openapi_spec_validator import OpenAPIV31SpecValidator  # importing it takes two seconds

    OpenAPIV31SpecValidator(document).validate()
