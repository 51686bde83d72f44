"""The files of a checkpoint, and where the Hugging Face cache stores them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3seg.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
REFERENCE_WEIGHTS = "sam3.pt"
CONFIG = "config.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_BPE_SUFFIX = ".txt.gz"
_MAX_HEADER = 100 * 2**20  # safetensors' own limit


def wanted_files(listing: Iterable[str]) -> list[str]:
    """Select the files that s3seg needs from the file list of a repository, small files first.

    Only one layout of the weights is selected: ``model.safetensors``, else its shards with their index, else
    ``sam3.pt``. If the result has no weights, the repository has none.
    """
    names = set(listing)
    small = sorted(name for name in names if name in (CONFIG, *_TOKENIZER_FILES) or _is_bpe(name))
    if WEIGHTS in names:
        return [*small, WEIGHTS]
    if INDEX in names:
        return [*small, INDEX, *sorted(name for name in names if _SHARD.fullmatch(name))]
    return [*small, *([REFERENCE_WEIGHTS] if REFERENCE_WEIGHTS in names else [])]


def is_weights(name: str) -> bool:
    """Return whether a file of this name holds weights."""
    return name in (WEIGHTS, REFERENCE_WEIGHTS) or _SHARD.fullmatch(name) is not None


def weight_names(folder: Path) -> list[str]:
    """Return the weight files of a folder, including those that its index lists; empty if there are none."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards_of(folder / INDEX)
    return [REFERENCE_WEIGHTS] if (folder / REFERENCE_WEIGHTS).is_file() else []


def missing_files(folder: Path) -> tuple[str, ...]:
    """Return the names of files that a folder lacks to be a checkpoint; empty if it is complete."""
    weights = weight_names(folder)
    missing = [name for name in weights if not (folder / name).is_file()] if weights else [WEIGHTS]
    if weights != [REFERENCE_WEIGHTS] and not (folder / CONFIG).is_file():
        missing.append(CONFIG)  # the reference layout has one size only, and no configuration file
    if not _has_tokenizer(folder):
        missing.append("tokenizer.json")
    return tuple(missing)


def checkpoint_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a checkpoint folder that s3seg reads, weights last."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return tuple(folder / name for name in wanted_files(names))


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file has a complete header and exactly the size that the header states.

    The values of the tensors are not read.

    Raises:
        CheckpointError: The file is truncated, too long, or not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= _MAX_HEADER:
            raise CheckpointError(f"{path}: not a safetensors file ({size} bytes, without a valid header)")
        header = file.read(length)
    if len(header) < length:
        raise CheckpointError(f"{path}: truncated within its header ({size} bytes); download or copy it again")
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
        raise CheckpointError(f"{path}: not a safetensors file (its header is not valid JSON of tensors)") from err
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise CheckpointError(f"{path}: truncated: {size} of {expected} bytes; download or copy it again")
    if size > expected:
        raise CheckpointError(
            f"{path}: {size - expected} bytes longer than its header states; download or copy it again"
        )


def hub_home() -> Path:
    """Return the Hugging Face home folder, from the same environment variables as huggingface_hub."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return _expanded(os.environ.get("HF_HOME") or str(Path(cache) / "huggingface"))


def hub_cache() -> Path:
    """Return the folder in which the Hugging Face cache stores repositories."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return _expanded(named) if named else hub_home() / "hub"


def repo_folder(repo_id: str) -> Path:
    """Return the folder of a model repository in the Hugging Face cache."""
    return hub_cache() / f"models--{repo_id.replace('/', '--')}"


def snapshots(repo_id: str, revision: str | None = None) -> Iterator[Path]:
    """Yield the snapshot folders of a repository in the cache: that of main, then the others, newest first.

    With ``revision`` (branch, tag or commit), only the snapshot of that revision.
    """
    root = repo_folder(repo_id)
    wanted = revision or "main"
    reference = root / "refs" / wanted
    commit = reference.read_text().strip() if reference.is_file() else wanted
    first = root / "snapshots" / commit
    if first.is_dir():
        yield first
    if revision is None and (root / "snapshots").is_dir():
        others = [folder for folder in (root / "snapshots").iterdir() if folder.is_dir() and folder != first]
        yield from sorted(others, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _expanded(folder: str) -> Path:
    return Path(os.path.expandvars(folder)).expanduser()


def _shards_of(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{index}: not a valid index of weights: {err!r}; download or copy it again") from err


def _has_tokenizer(folder: Path) -> bool:
    if (folder / "tokenizer.json").is_file():
        return True
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return True
    return any(_is_bpe(path.name) for path in folder.glob(f"*{_BPE_SUFFIX}"))


def _is_bpe(name: str) -> bool:
    return name.endswith(_BPE_SUFFIX) and "/" not in name
