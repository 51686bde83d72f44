"""Environment variables that look like settings but are not."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import get_close_matches

from s3seg.app.settings import Settings

_log = logging.getLogger(__name__)
_PREFIX = "S3SEG_"
_OTHERS = frozenset({"S3SEG_URL", "S3SEG_TOKEN", "S3SEG_DEBUG"})  # of the client and the command line


def warn_of_misspelt(variables: Iterable[str]) -> None:
    """Log a warning for each variable whose name is nearly that of a setting: it has no effect, which nobody notices.

    Args:
        variables: Names of environment variables, such as ``os.environ``.
    """
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | _OTHERS
    for variable in sorted(variables):
        name = variable.upper()
        if name.startswith(_PREFIX) and name not in known and (close := get_close_matches(name, known, 1, 0.85)):
            _log.warning("%s is not a setting and has no effect; did you mean %s?", variable, close[0])
