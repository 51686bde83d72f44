"""Embeddings by the content of their pictures, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from s3seg.inference.stages import EncodedImage


class EmbeddingCache:
    """The embeddings used last. Safe to share between threads.

    Args:
        max_bytes: What they may take together in the device's memory; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """What they take now."""
        return self._bytes

    def get(self, digest: bytes) -> EncodedImage | None:
        """The embedding of a picture, if it is kept."""
        with self._lock:
            found = self._kept.get(digest)
            if found is not None:
                self._kept.move_to_end(digest)
            return found

    def put(self, digest: bytes, image: EncodedImage) -> None:
        """Keep an embedding, at the cost of those that were not used for longest."""
        with self._lock:
            if digest in self._kept:
                self._bytes -= self._kept.pop(digest).nbytes
            self._kept[digest] = image
            self._bytes += image.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
