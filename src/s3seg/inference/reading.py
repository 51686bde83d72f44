"""Read the pictures of requests: in decoding processes or on threads, and once for all who ask for the same one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from s3seg.decoding import DecodingPool
from s3seg.inference.network import Network, ResizedImage
from s3seg.results.windows import Window


@dataclass(frozen=True, slots=True)
class RequestFile:
    """A picture file that came with a request.

    Attributes:
        content: Its bytes.
        digest: Their SHA-256.
        name: What error messages call the picture.
        user_id: Whose picture it is.
    """

    content: bytes
    digest: bytes
    name: str
    user_id: str


@dataclass(slots=True)
class _Reading:
    """A picture that is being read, and how many wait for it."""

    task: asyncio.Task[ResizedImage]
    waiting: int = 0


class PictureReader:
    """Reads picture files for a network. Use it on one event loop.

    Args:
        network: Says how pictures are read; any of several with the same checkpoint.
        cpu: Threads for hashing, and for reading if there are no decoding processes.
        decoding: Processes that read pictures, with `s3seg.inference.decoding.read_resized`.
    """

    def __init__(self, network: Network, *, cpu: Executor, decoding: DecodingPool | None) -> None:
        self._network = network
        self._cpu = cpu
        self._decoding = decoding
        self._reading: dict[bytes, _Reading] = {}

    async def identify(self, content: bytes, *, name: str, user_id: str) -> RequestFile:
        """Return the file with the digest of its bytes."""
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(self._cpu, lambda: hashlib.sha256(content).digest())
        return RequestFile(content, digest, name, user_id)

    async def read(self, file: RequestFile) -> ResizedImage:
        """Read a picture, once for all callers that wait for it; when none of them waits any more, it is given up.

        Raises:
            ImageDecodeError: It cannot be read, or takes too long to decode.
            UnavailableError: No decoding process became free in time.
        """
        reading = self._reading.get(file.digest)
        if reading is None:
            task = asyncio.ensure_future(self._read_once(file))
            # marks the exception as retrieved; callers that still wait get it from their own await
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            reading = self._reading[file.digest] = _Reading(task)
        reading.waiting += 1
        try:
            return await asyncio.shield(reading.task)  # shared: one caller's cancellation must not stop it
        finally:
            reading.waiting -= 1
            if not reading.waiting:
                reading.task.cancel()  # does nothing if it is done
                if self._reading.get(file.digest) is reading:
                    del self._reading[file.digest]

    async def read_tiles(self, file: RequestFile, windows: Sequence[Window]) -> list[ResizedImage]:
        """Read windows of a picture; errors as for `read`."""
        network, content, name = self._network, file.content, file.name
        if self._decoding is not None:
            return await network.read_tiles_in(self._decoding, content, windows, name=name, user_id=file.user_id)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._cpu, lambda: network.read_tiles(content, windows, name=name))

    async def _read_once(self, file: RequestFile) -> ResizedImage:
        if self._decoding is not None:
            return await self._network.read_in(self._decoding, file.content, name=file.name, user_id=file.user_id)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._cpu, lambda: self._network.read(file.content, name=file.name))
