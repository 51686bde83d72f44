"""``s3seg worker``: run waiting tasks without serving HTTP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from s3seg.commands.model_options import AcceptLicense, Checkpoint, Device, Dtype, Pull, model_settings, pull_if_missing

if TYPE_CHECKING:
    from s3seg.app.settings import Settings

_log = logging.getLogger("s3seg.inference.worker")


def worker(
    checkpoint: Checkpoint = None,
    device: Device = None,
    dtype: Dtype = None,
    pull: Pull = False,
    accept_license: AcceptLicense = False,
) -> None:
    """Run waiting tasks until Ctrl-C, without HTTP: a machine behind NAT needs no open port."""
    import asyncio

    from s3seg.web.logs import configure_logging

    configure_logging()
    settings = model_settings(checkpoint, device, dtype)
    if pull:
        pull_if_missing(settings.checkpoint, accept_license=accept_license)
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then drain. A second signal ends the process, even while weights load."""
    import asyncio
    import signal

    from s3seg.app import Parts, maintenance, make_engine
    from s3seg.web.server import stop_at_once

    parts = Parts(settings)
    engine = make_engine(parts)
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            stop_now.set()
        else:
            _log.info("draining")
            stop.set()

    async def work() -> None:
        engine.start()
        try:
            loaded = asyncio.ensure_future(engine.loaded())
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({loaded, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if loaded.done():
                loaded.result()  # without a model the worker is of no use: raise what loading raised
            async with maintenance(parts):
                await stopped
        finally:
            await engine.aclose(grace_s=settings.drain_s)
            await parts.aclose()

    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    working = asyncio.ensure_future(work())
    await asyncio.wait({working, asyncio.ensure_future(stop_now.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        await stop_at_once(engine.worker.aclose)
        for number in signals:
            loop.remove_signal_handler(number)
        signal.raise_signal(signal.SIGTERM)  # returning would wait for threads, such as one that loads weights
    working.result()
