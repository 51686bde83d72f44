"""Read a checkpoint through and say whether it is what it should be."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3seg.checkpoints._layout import check_safetensors
from s3seg.checkpoints._registry import Checkpoint, resolve
from s3seg.errors import CheckpointError

Progress = Callable[[str, int, int | None], None]
"""Told (file name, bytes done, bytes in all or None) while something long goes on."""

_CHUNK = 8 * 2**20


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What was found out about one file.

    Attributes:
        path: The file.
        size_bytes: Its size.
        checksum: Whether its contents have the checksum under which the hub keeps them; unknown for files
            that did not come through the Hugging Face cache, and where the disk has no symbolic links.
        problem: What is wrong, in words; None if nothing is.
    """

    path: Path
    size_bytes: int
    checksum: Literal["matches", "differs", "unknown"]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Verification:
    """The checks of all files of a checkpoint."""

    checkpoint: Checkpoint
    files: tuple[FileCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether no file has a problem."""
        return all(file.problem is None for file in self.files)


def verify(checkpoint: Checkpoint | str | Path | None = None, *, progress: Progress | None = None) -> Verification:
    """Check every file of a checkpoint: complete, well-formed, and with the hub's checksum where it is known.

    Raises:
        CheckpointNotFoundError: The checkpoint is not on this machine.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = resolve(checkpoint)
    return Verification(checkpoint, tuple(_check(path, progress) for path in checkpoint.files))


def matches_etag(path: Path, etag: str, *, progress: Progress | None = None, name: str | None = None) -> bool | None:
    """Whether a file has the contents that the hub's ETag promises; None if the ETag is no known checksum.

    The hub uses SHA-256 for large files, and git's blob SHA-1 for small ones.
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
    problem = _malformed(path)
    checksum: Literal["matches", "differs", "unknown"] = "unknown"
    if path.is_symlink() and (blob := path.readlink()).parent.name == "blobs":  # the Hugging Face cache
        same = matches_etag(path, blob.name, progress=progress)
        checksum = "unknown" if same is None else ("matches" if same else "differs")
    if checksum == "differs" and problem is None:
        problem = "its contents are not those that the hub sent; delete it and pull again"
    return FileCheck(path, size, checksum, problem)


def _malformed(path: Path) -> str | None:
    try:
        if path.stat().st_size == 0:
            return "the file is empty"
        if path.suffix == ".safetensors":
            check_safetensors(path)
        elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            return "truncated, or not a file of torch.save"
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
    except CheckpointError as err:
        return str(err).removeprefix(f"{path}: ")
    except ValueError as err:
        return f"not valid JSON: {err}"
    return None
