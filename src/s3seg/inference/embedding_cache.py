"""A cache of encoded pictures, limited by the memory that they take."""

from __future__ import annotations

import threading

from cachetools import LRUCache

from s3seg.inference.network import EncodedImage


class EmbeddingCache:
    """Keeps the encoded pictures that were used last. Safe to share between threads.

    Args:
        max_bytes: Device memory that they may take together; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._images: LRUCache[bytes, EncodedImage] = LRUCache(max_bytes, getsizeof=lambda image: image.nbytes)
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Device memory that they take now."""
        return int(self._images.currsize)

    def get(self, digest: bytes) -> EncodedImage | None:
        """Return the encoded picture with this digest, or None."""
        with self._lock:
            return self._images.get(digest)

    def put(self, digest: bytes, image: EncodedImage) -> None:
        """Keep an encoded picture, and drop the least recently used ones as necessary.

        A picture larger than the whole cache is not kept.
        """
        with self._lock:
            if image.nbytes <= self._images.maxsize:
                self._images[digest] = image

    def clear(self) -> None:
        """Drop all pictures."""
        with self._lock:
            self._images.clear()
