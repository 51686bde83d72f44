"""What PostgREST's refusals mean.

Our functions raise codes of their own (``PT402`` becomes HTTP 402) with a word as message and, where numbers are
needed, JSON as detail. Nothing that the database says is ever passed on: a check violation, for one, quotes the row.
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

_REASONS = {
    "UNKNOWN_IMAGE": "image_url is not one of your uploads",
    "UNKNOWN_PROJECT": "project_id is not one of your projects",
    "KEY_REUSED": "Idempotency-Key was used for another request",
    "BAD_PROMPTS": "a task has 1 to 16 prompts of 1 to 500 characters without control characters",
}
# values that no column takes: wrong form, NUL, out of range, not unique, against a constraint
_BAD_VALUES = frozenset({"22P02", "22P05", "22021", "22003", "22001", "23502", "23503", "23505", "23514"})
# what Supabase's gateway says before PostgREST is asked; it gives no codes
_NO_KEY = frozenset(
    {
        *("Invalid API key", "Unregistered API key", "Legacy API keys are disabled"),
        *("No API key found in request", "No `apikey` request header or url param was found."),
    }
)
_NO_SCHEMA = frozenset({"PGRST202", "PGRST204", "PGRST205", "42883", "42P01", "42703"})


def translated(err: APIError) -> S3segError:
    """The error of ours that a refusal stands for."""
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
    if code == "PT400":
        return InvalidRequestError(_REASONS.get(err.message or "", "the database refused the request"))
    if code in _BAD_VALUES:
        return InvalidRequestError("the database cannot store a value of the request")
    if code in ("PT403", "42501"):
        return ForbiddenError("this kind of user may not do this; sign in")
    if code == "PT401" or code.startswith("PGRST30"):
        return AuthInvalidError("the database does not accept the token")
    if code in _NO_SCHEMA:
        return ConfigurationError("the database lacks s3seg's schema, or has an older one; run: s3seg db migrate")
    if (err.message or "") in _NO_KEY:
        return ConfigurationError(
            "Supabase does not accept the API key; check S3SEG_SUPABASE_PUBLISHABLE_KEY (edge) and "
            "S3SEG_SUPABASE_SECRET_KEY (gpu, operators)"
        )
    if code in ("404", "405"):  # the status of an answer that PostgREST did not give
        return UnavailableError("something else answers where the database should")
    return UnavailableError(f"the database cannot serve the request now ({_safe(code)})")


def lost_answer(err: httpx.TransportError) -> UnavailableError:
    """A call that got no answer."""
    return UnavailableError(f"the database does not answer ({type(err).__name__})")


def submit_rate(numbers: dict[str, Any]) -> RateDecision:
    """The state of the submit limit as the database tells it."""
    return _rate(numbers, Action.SEGMENT)


def _rate(numbers: dict[str, Any], action: Action) -> RateDecision:
    age = numbers.get("oldest_age")
    limit = int(numbers["limit"])
    count = int(numbers.get("count", limit))
    return decide(action, count=count, oldest=None if age is None else -float(age), limit=limit, now=0.0)


def _rate_limited(numbers: dict[str, Any]) -> S3segError:
    try:
        _rate(numbers, Action(numbers["action"])).require()
    except RateLimitedError as refused:
        return refused
    except (KeyError, ValueError, TypeError):
        pass
    return UnavailableError("the database refused the request for its rate, but did not say how long")


def _numbers(err: APIError) -> dict[str, Any]:
    """The JSON that a function of ours put into the detail."""
    try:
        found = json.loads(err.details or "{}")
    except (ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _safe(code: str) -> str:
    return code if code.isalnum() and len(code) <= 16 else "no code"
