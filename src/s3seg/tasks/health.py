"""Health checks of the adapters, in words that are safe to publish: ``/ready`` needs no authentication."""

from __future__ import annotations

import asyncio
import logging

from s3seg.errors import ConfigurationError, S3segError, UnavailableError
from s3seg.tasks.ports import Part

_log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0


class MismatchError(ConfigurationError):
    """A setting differs between services. The message has the values, which are not secret."""


async def health_check(part: Part) -> str | None:
    """Return None if the part works, or else a message that says what is wrong.

    It never raises, and returns within five seconds. Only the messages of `UnavailableError` and `MismatchError` are
    returned as they are. Other errors may name files and settings, so they are logged for the operator instead.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await part.check()
    except TimeoutError:
        return f"no response within {_TIMEOUT_S:.0f} seconds"
    except UnavailableError as err:
        return str(err)
    except MismatchError as err:
        _log.error("health check failed: %s", err)
        return str(err)
    except S3segError as err:
        _log.error("health check failed: %s", err)
        return "configuration error; see the log of the service"
    except Exception:
        _log.exception("health check failed with an unexpected error")
        return "the check failed; see the log of the service"
    return None
