"""Verify the files of a checkpoint."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3seg.checkpoints._layout import check_safetensors
from s3seg.checkpoints._registry import Checkpoint, resolve
from s3seg.errors import CheckpointError

Progress = Callable[[str, int, int | None], None]
"""Called with (file name, bytes done, total bytes or None) during a long operation."""

_CHUNK = 8 * 2**20


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of verifying one file.

    Attributes:
        path: The file.
        size_bytes: Its size.
        checksum: Whether the contents have the hub's checksum; "unknown" for files that are not in the Hugging
            Face cache, and on file systems without symbolic links.
        problem: What is wrong with the file; None if no check failed.
        checked: What was checked and found right, such as "header", "size" or "SHA-256". Empty if there was
            nothing to check the file against: then nothing is known about its contents.
    """

    path: Path
    size_bytes: int
    checksum: Literal["matches", "differs", "unknown"]
    problem: str | None
    checked: tuple[str, ...] = ()

    @property
    def is_verified(self) -> bool:
        """Whether every byte of the file is known to be right: its checksum matches the hub's."""
        return self.problem is None and self.checksum == "matches"


@dataclass(frozen=True, slots=True)
class Verification:
    """The results of verifying the files of a checkpoint."""

    checkpoint: Checkpoint
    files: tuple[FileCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed. This does not mean that all contents were verified: see `is_verified`."""
        return all(file.problem is None for file in self.files)

    @property
    def is_verified(self) -> bool:
        """Whether the contents of every file match the hub's checksum."""
        return all(file.is_verified for file in self.files)


def verify(checkpoint: Checkpoint | str | Path | None = None, *, progress: Progress | None = None) -> Verification:
    """Check the files of a checkpoint.

    Files in the Hugging Face cache are compared with the hub's checksum. Of safetensors files the header and the
    size are checked, of JSON files the syntax, of ``.pt`` files the ZIP directory, of ``.gz`` files the checksum
    that they contain. `FileCheck.checked` says which of these were done for a file.

    Args:
        checkpoint: A checkpoint, or a name as for :func:`resolve`.
        progress: Called with (file name, bytes done, total bytes) while checksums are computed.

    Raises:
        CheckpointNotFoundError: The checkpoint is not on this machine.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = resolve(checkpoint)
    return Verification(checkpoint, tuple(_check(path, progress) for path in checkpoint.files))


def matches_etag(path: Path, etag: str, *, progress: Progress | None = None, name: str | None = None) -> bool | None:
    """Return whether the contents of a file match the hub's ETag; None if the ETag is not a known checksum.

    The ETag is a SHA-256 for large files, and git's blob SHA-1 for small ones.
    """
    size = path.stat().st_size
    if len(etag) == 64:
        digest = hashlib.sha256()
    elif len(etag) == 40:
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    else:
        return None
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(name or path.name, done, size)
    return digest.hexdigest() == etag


def _check(path: Path, progress: Progress | None) -> FileCheck:
    size = path.stat().st_size
    checked, problem = _check_format(path)
    checksum: Literal["matches", "differs", "unknown"] = "unknown"
    if path.is_symlink() and (blob := path.readlink()).parent.name == "blobs":  # the Hugging Face cache
        same = matches_etag(path, blob.name, progress=progress)
        checksum = "unknown" if same is None else ("matches" if same else "differs")
        if same:
            checked += ("SHA-256" if len(blob.name) == 64 else "SHA-1",)
    if checksum == "differs" and problem is None:
        problem = "its contents do not match the hub's checksum; delete it and pull again"
    return FileCheck(path, size, checksum, problem, checked)


def _check_format(path: Path) -> tuple[tuple[str, ...], str | None]:
    """Return which properties of the format were checked and are right, and the problem if one is not."""
    try:
        if path.stat().st_size == 0:
            return (), "the file is empty"
        if path.suffix == ".safetensors":
            check_safetensors(path)
            return ("header", "size"), None
        if path.suffix in (".pt", ".pth"):
            return (("ZIP directory",), None) if zipfile.is_zipfile(path) else ((), "truncated, or not a PyTorch file")
        if path.suffix == ".json":
            json.loads(path.read_bytes())
            return ("JSON syntax",), None
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while file.read(_CHUNK):
                    pass
            return ("CRC-32",), None
    except CheckpointError as err:
        return (), str(err).removeprefix(f"{path}: ")
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        return (), f"damaged gzip file: {err}"
    except ValueError as err:
        return (), f"not valid JSON: {err}"
    return (), None
