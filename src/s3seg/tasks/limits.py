"""The limits of the API: tiers, rates and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Tier(StrEnum):
    """A user's plan, which decides their rate limits."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class Action(StrEnum):
    """An action with a rate limit of its own; polling a task (``TASKS``) has the same numbers as ``RESULTS``."""

    UPLOAD = "upload"
    SEGMENT = "segment"
    RESULTS = "results"
    TASKS = "tasks"


RateTable = Mapping[Tier, Mapping[Action, int]]
"""Number of actions allowed in any 60 seconds, by tier and action."""


def _row(upload: int, segment: int, results: int) -> Mapping[Action, int]:
    return MappingProxyType(
        {Action.UPLOAD: upload, Action.SEGMENT: segment, Action.RESULTS: results, Action.TASKS: results}
    )


RATE_LIMITS: RateTable = MappingProxyType(
    {
        Tier.FREE: _row(10, 5, 60),
        Tier.PRO: _row(30, 20, 120),
        Tier.ENTERPRISE: _row(100, 60, 300),
    }
)
"""The default limits: never more than this many actions in any 60 seconds."""

UNLIMITED = 1_000_000_000
"""A limit that no user reaches, of services without rate limits; such actions are not counted."""

RATE_WINDOW_S = 60
"""Length of the sliding window, in seconds."""

MAX_UPLOAD_BYTES = 10 * 1024 * 1024
"""Largest upload, in bytes: 10 MiB."""

MAX_PROMPTS = 16
"""Most prompts in one task."""

MAX_PROMPT_CHARS = 500
"""Most characters (code points) in one prompt."""

MAX_NAME_CHARS = 120
"""Most characters in a project's name."""

MAX_PAGE_SIZE = 100
"""Largest ``limit`` of a list request."""

DEFAULT_PAGE_SIZE = 20
"""``limit`` of a list request that gives none."""

MAX_IDEMPOTENCY_KEY_CHARS = 200
"""Most characters in an ``Idempotency-Key``."""
