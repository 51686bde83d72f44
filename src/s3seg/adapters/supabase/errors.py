"""Translates errors of PostgREST into errors of `s3seg.errors`.

The SQL functions of s3seg raise their own codes (``PT402`` becomes HTTP 402) with one word as the message and, where
numbers are needed, JSON as the detail. Messages of the database are never passed on, since they may contain data: a
check violation, for example, quotes the row.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
from postgrest import APIError

from s3seg.errors import (
    AuthInvalidError,
    ConfigurationError,
    ForbiddenError,
    InsufficientCreditsError,
    InvalidRequestError,
    LeaseLostError,
    RateLimitedError,
    S3segError,
    UnavailableError,
)
from s3seg.tasks.limits import Action
from s3seg.tasks.rate_limit import RateDecision, decide
from s3seg.tasks.retention import ACCOUNT_DELETED, keep_refused
from s3seg.tasks.webhooks import MAX_WEBHOOKS

_REASONS = {
    "UNKNOWN_IMAGE": "image_url is not one of your uploads",
    "UNKNOWN_PROJECT": "project_id is not one of your projects",
    "KEY_REUSED": "Idempotency-Key was used for another request",
    "TOO_MANY_WEBHOOKS": f"there are {MAX_WEBHOOKS} webhooks already; delete one first",
    "BAD_WEBHOOK": "url is not an address that can be called",
    "TOO_MANY_CONCEPTS": "you have 100 concepts, which is the most; delete one first",
    "BAD_VISUAL": "clicks or a concept are malformed or too large",
    "BAD_PROMPTS": "a task has 1 to 16 prompts of 1 to 500 characters without control characters",
}
# invalid values: wrong syntax, NUL characters, out of range, not unique, violating a constraint
_BAD_VALUES = frozenset({"22P02", "22P05", "22021", "22003", "22001", "23502", "23503", "23505", "23514"})
# messages of Supabase's gateway, which responds without a code before the request reaches PostgREST
_NO_KEY = frozenset(
    {
        *("Invalid API key", "Unregistered API key", "Legacy API keys are disabled"),
        *("No API key found in request", "No `apikey` request header or url param was found."),
    }
)
_NO_SCHEMA = frozenset({"PGRST202", "PGRST204", "PGRST205", "42883", "42P01", "42703"})


def translated(err: APIError) -> S3segError:
    """Return the error of `s3seg.errors` that corresponds to an error of PostgREST."""
    code = err.code or ""
    if code == "PT429":
        return _rate_limited(_numbers(err))
    if code == "PT402":
        numbers = _numbers(err)
        return InsufficientCreditsError(
            f"the task costs {numbers.get('cost')} credits, the account has {numbers.get('credits')}"
        )
    if code == "PT409":
        return LeaseLostError("this attempt no longer holds its task")
    if code == "PT400" and err.message == "OVERDRAWN":
        return InvalidRequestError(f"the account has only {_numbers(err).get('credits')} credits")
    if code == "PT400" and err.message == "BAD_KEEP":
        numbers = _numbers(err)
        return InvalidRequestError(keep_refused(numbers.get("asked"), numbers.get("shortest"), numbers.get("longest")))
    if code == "PT400":
        return InvalidRequestError(_REASONS.get(err.message or "", "the database refused the request"))
    if code in _BAD_VALUES:
        return InvalidRequestError("the database cannot store a value of the request")
    if code in ("PT403", "42501"):
        return ForbiddenError("this kind of user may not do this; sign in")
    if code == "PT401" and err.message == "ACCOUNT_DELETED":
        return AuthInvalidError(ACCOUNT_DELETED)
    if code == "PT401" or code.startswith("PGRST30"):
        return AuthInvalidError("the database rejects the token")
    if code in _NO_SCHEMA:
        return ConfigurationError("the database has no schema of s3seg, or an old one; run: s3seg db migrate")
    if (err.message or "") in _NO_KEY:
        return ConfigurationError(
            "Supabase rejects the API key; check S3SEG_SUPABASE_PUBLISHABLE_KEY (edge) and "
            "S3SEG_SUPABASE_SECRET_KEY (gpu, operators)"
        )
    if code in ("404", "405"):  # an HTTP status, so the response is not from PostgREST
        return UnavailableError("the response is not from the database; its address is probably wrong")
    return UnavailableError(f"the database cannot serve the request now ({_safe(code)})")


def lost_answer(err: httpx.TransportError) -> UnavailableError:
    """Return the error for a call that got no response."""
    return UnavailableError(f"the database does not respond ({type(err).__name__})")


def rate_decision(numbers: dict[str, Any], action: Action) -> RateDecision:
    """Return the decision about an action, from the numbers that the database reports."""
    age = numbers.get("oldest_age")
    limit = int(numbers["limit"])
    count = int(numbers.get("count", limit))
    return decide(action, count=count, oldest=None if age is None else -float(age), limit=limit, now=0.0)


def _rate_limited(numbers: dict[str, Any]) -> S3segError:
    try:
        rate_decision(numbers, Action(numbers["action"])).require()
    except RateLimitedError as refused:
        return refused
    except (KeyError, ValueError, TypeError):
        pass
    return UnavailableError("the database refused the request because of a rate limit, without saying when to retry")


def _numbers(err: APIError) -> dict[str, Any]:
    """Return the JSON object that an SQL function of s3seg put into the detail; empty if there is none."""
    try:
        found = json.loads(err.details or "{}")
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _safe(code: str) -> str:
    return code if code.isalnum() and len(code) <= 16 else "no code"
