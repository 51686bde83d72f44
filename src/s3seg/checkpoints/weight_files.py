"""The names of weight files, and which of several in a folder or a repository is the one to use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from s3seg.errors import CheckpointNotFoundError

REFERENCE_FILES = ("sam3.1_multiplex.pt", "sam3.pt", "sam3.safetensors")
"""Published weight files with the tensor names of the reference implementation. They need no ``config.json``."""

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", *REFERENCE_FILES)
"""The names under which SAM 3 is published, in order of preference."""

INDEX_SUFFIX = ".safetensors.index.json"
"""The end of the name of a file that lists shards and the tensors in each."""

_PATTERNS = (f"*{INDEX_SUFFIX}", "*.safetensors", "*.pt", "*.pth")


def choose_weights(names: Iterable[str], where: str | Path) -> str | None:
    """Choose the weight file among the file names of a folder or a repository.

    It is the first of `WEIGHT_FILES` that is there, else the only index of shards, else the only ``.safetensors`` or
    ``.pt`` file. Names with a "/" are ignored.

    Args:
        names: File names.
        where: The folder or repository, for the error message.

    Returns:
        The name, or None if there is no weight file.

    Raises:
        CheckpointNotFoundError: There are several weight files, and none of them has a known name.
    """
    names = {name for name in names if "/" not in name}
    for name in WEIGHT_FILES:
        if name in names:
            return name
    for pattern in _PATTERNS:
        found = sorted(name for name in names if fnmatchcase(name, pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise CheckpointNotFoundError(
                f"several weight files in {where}: {', '.join(found)}. Give the path of one of them."
            )
    return None


def find_weights(path: Path) -> Path:
    """Return the weight file at a path: the path itself, or the one that `choose_weights` chooses in the folder.

    Raises:
        CheckpointNotFoundError: There is no such path, or the folder holds no weight file, or more than one and none
            of them has a known name.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointNotFoundError(f"no checkpoint at {path}: no such file or folder")
    chosen = choose_weights((file.name for file in path.iterdir() if file.is_file()), path)
    if chosen is None:
        raise CheckpointNotFoundError(
            f"no checkpoint in {path}: the folder holds none of {', '.join(WEIGHT_FILES)}, "
            "nor another .safetensors or .pt file"
        )
    return path / chosen


def shard_pattern(index: str) -> re.Pattern[str]:
    """Return a regular expression for the names of the shards that belong to an index file."""
    return re.compile(re.escape(index.removesuffix(INDEX_SUFFIX)) + r"-\d{5}-of-\d{5}\.safetensors")
