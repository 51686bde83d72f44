"""Adapters of a third party, chosen by dotted path, that kill their process at a chosen moment: kill -9, no goodbye.

``S3SEG_TEST_DIE`` names it: ``method`` dies before doing it, ``method!`` just after.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from s3seg.app import Parts
from s3seg.app.settings import Settings


class Deadly:
    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._adapter, name)
        moment = os.environ.get("S3SEG_TEST_DIE", "")
        if name != moment.rstrip("!"):
            return real

        async def dying(*args: Any, **kwargs: Any) -> Any:
            if moment.endswith("!"):
                result = await real(*args, **kwargs)
                if name == "claim_batch" and not result:
                    return result
            return os.kill(os.getpid(), signal.SIGKILL)

        return dying


def objects(settings: Settings) -> Any:
    return Deadly(Parts(settings.model_copy(update={"object_store": "files"})).objects)


def queue(settings: Settings) -> Any:
    return Deadly(Parts(settings.model_copy(update={"task_queue": "sqlite"})).task_queue)
