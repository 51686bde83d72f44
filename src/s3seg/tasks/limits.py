"""The numbers of the contract: tiers, rates, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Tier(StrEnum):
    """What a user has signed up for."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class Action(StrEnum):
    """What is counted, each in a bucket of its own; polling tasks has the numbers of ``RESULTS``."""

    UPLOAD = "upload"
    SEGMENT = "segment"
    RESULTS = "results"
    TASKS = "tasks"


RateTable = Mapping[Tier, Mapping[Action, int]]
"""Actions allowed in any 60 seconds, by tier."""


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
"""The contract's table: never more than this many in any 60 seconds."""

RATE_WINDOW_S = 60
"""Length of the moving window, seconds."""

MAX_UPLOAD_BYTES = 10 * 1024 * 1024
"""10 MB as the contract reads it."""

IMAGE_CONTENT_TYPES = ("image/png", "image/jpeg", "image/webp")
"""What may be uploaded, decided from the bytes."""

MAX_PROMPTS = 16
"""Prompts in one task."""

MAX_PROMPT_CHARS = 500
"""Characters (code points) in one prompt."""

MAX_NAME_CHARS = 120
"""Characters in a project's name."""

MAX_PAGE_SIZE = 100
"""Largest ``limit`` of a list."""

DEFAULT_PAGE_SIZE = 20
"""``limit`` where none is given."""

MAX_IDEMPOTENCY_KEY_CHARS = 200
"""Length of an ``Idempotency-Key``."""
