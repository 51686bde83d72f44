"""Which pictures an agent may name: files below allowed folders, data: URLs, and http(s) URLs if they are allowed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3seg import images
from s3seg.errors import ConfigurationError, ImageDecodeError
from s3seg.images import LoadedImage

MAX_BYTES = 64 * 2**20
"""Largest file that is read, in bytes."""

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded."""

_SUFFIXES = frozenset({".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_MAX_VISITED = 20_000


@dataclass(frozen=True, slots=True)
class PictureAccess:
    """Reads the pictures that it was told to allow, and no others.

    Attributes:
        folders: Files below these may be read. Links are followed before that is decided.
        urls: Whether http(s) URLs may be downloaded.
    """

    folders: Sequence[Path] = ()
    urls: bool = False

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise ConfigurationError(f"{folder} is not a folder; name folders whose pictures may be read")
        object.__setattr__(self, "folders", tuple(folder.resolve() for folder in self.folders))

    def load(self, source: str) -> LoadedImage:
        """Load a picture.

        Args:
            source: A path (relative ones are looked for in each folder), a data: URL, or an http(s) URL.

        Raises:
            ImageDecodeError: It cannot be read, or is not allowed; both give the same message for a path, so that
                nobody learns which files there are elsewhere.
        """
        if source[:5].lower() == "data:":
            return images.load(source, name="the data: URL", max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)
        if images.is_url(source):
            if not self.urls:
                raise ImageDecodeError("URLs are not allowed here; name a file, or send the picture as a data: URL")
            return images.load(source, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)
        path = self._allowed(source)
        if path is None:
            raise ImageDecodeError(f"{source!r:.200} is not a file below {self.described}; list_pictures names them")
        return images.load(self._read(path, source), name=source, max_pixels=MAX_PIXELS)

    @property
    def described(self) -> str:
        """The folders, for messages."""
        return " or ".join(map(str, self.folders)) or "an allowed folder (there is none)"

    def names(self, *, limit: int) -> list[str]:
        """Return the paths of pictures below the folders, sorted within each folder, at most ``limit``, each once."""
        found: dict[str, None] = {}
        for path in self._walk():
            found[str(path)] = None
            if len(found) >= limit:
                break
        return list(found)

    def _walk(self) -> Iterator[Path]:
        visited = 0
        for top in self.folders:
            for folder, subfolders, files in os.walk(top):
                subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
                for name in sorted(files):
                    visited += 1
                    if visited > _MAX_VISITED:
                        return
                    if Path(name).suffix.lower() in _SUFFIXES and not name.startswith("."):
                        yield Path(folder) / name

    def _allowed(self, source: str) -> Path | None:
        for folder in self.folders:
            try:
                path = (folder / source).resolve(strict=True)
            except (OSError, RuntimeError, ValueError):  # not there, a circle of links, a NUL
                continue
            if any(path.is_relative_to(allowed) for allowed in self.folders) and path.is_file():
                return path
        return None

    def _read(self, path: Path, source: str) -> bytes:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                    raise ImageDecodeError(
                        f"{source}: it is larger than {MAX_BYTES // 2**20} MB, or is not a regular file"
                    )
                return file.read(MAX_BYTES)
        except OSError as err:
            raise ImageDecodeError(f"{source}: it cannot be read: {err.strerror}") from err
