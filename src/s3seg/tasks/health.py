"""What a part of a service says of itself, in words that anybody may read: `/ready` is open."""

from __future__ import annotations

import asyncio
import logging

from s3seg.errors import S3segError, UnavailableError
from s3seg.tasks.ports import Part

_log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0


async def health_check(part: Part) -> str | None:
    """None if the part can serve now, else what is wrong with it; never raises, and answers within five seconds.

    Only `UnavailableError` is told in its own words. Those of other errors are for the operator, as they may name files
    and settings: they are logged.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await part.check()
    except TimeoutError:
        return f"no answer within {_TIMEOUT_S:.0f} seconds"
    except UnavailableError as err:
        return str(err)
    except S3segError as err:
        _log.error("a part cannot work: %s", err)
        return "it is not set up right; the log says how"
    except Exception:
        _log.exception("a part's check failed")
        return "it cannot be checked; the log says why"
    return None
