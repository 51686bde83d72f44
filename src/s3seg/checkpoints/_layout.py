"""The files of a checkpoint, and where the Hugging Face cache stores them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from s3seg.checkpoints.weight_files import INDEX_SUFFIX, REFERENCE_FILES, choose_weights, shard_pattern
from s3seg.errors import CheckpointError

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
_WEIGHTS = "model.safetensors"  # named where a checkpoint has no weights at all
_CLIP = "openai/clip-vit-base-patch32"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_BPE_SUFFIX = ".txt.gz"
_MAX_HEADER = 100 * 2**20  # safetensors' own limit


def wanted_files(listing: Iterable[str], where: str | Path) -> list[str]:
    """Select the files that s3seg needs from the file list of a repository or folder, weights last.

    Only one set of weights is selected; see `choose_weights`. If the result has no weights, there are none.

    Args:
        listing: File names.
        where: The repository or folder, for error messages.

    Raises:
        CheckpointNotFoundError: There are several weight files, and none of them has a known name.
    """
    names = set(listing)
    small = sorted(name for name in names if name in (CONFIG, *_TOKENIZER_FILES) or _is_bpe(name))
    chosen = choose_weights(names, where)
    if chosen is None:
        return small
    if chosen.endswith(INDEX_SUFFIX):
        shard = shard_pattern(chosen)
        return [*small, chosen, *sorted(name for name in names if shard.fullmatch(name))]
    return [*small, chosen]


def is_weights(name: str) -> bool:
    """Return whether a file of this name holds weights."""
    return name.endswith((".safetensors", ".pt", ".pth"))


def missing_files(folder: Path) -> tuple[str, ...]:
    """Return the names of files that a folder lacks to be a checkpoint; empty if it is complete.

    Raises:
        CheckpointNotFoundError: The folder holds several weight files, and none of them has a known name.
        CheckpointError: The index of the shards is invalid.
    """
    here = {path.name for path in folder.iterdir() if path.is_file()}
    missing = missing_from(here, folder)
    chosen = choose_weights(here, folder)
    shards = _shards_of(folder / chosen) if chosen and chosen.endswith(INDEX_SUFFIX) else []
    return (*(name for name in shards if name not in here), *missing)


def missing_from(names: Collection[str], where: str | Path) -> tuple[str, ...]:
    """Return which kinds of files a list lacks to be that of a checkpoint, each by one name; shards are not counted.

    Raises:
        CheckpointNotFoundError: There are several weight files, and none of them has a known name.
    """
    chosen = choose_weights(names, where)
    missing = [] if chosen else [_WEIGHTS]
    is_reference = chosen is not None and (chosen in REFERENCE_FILES or chosen.endswith((".pt", ".pth")))
    if not is_reference and CONFIG not in names:  # the reference layout can do without
        missing.append(CONFIG)
    if not _has_tokenizer(names):
        missing.append(TOKENIZER)
    return tuple(missing)


def tokenizer_command(folder: str | Path) -> str:
    """Return the command that adds a tokenizer to a folder with weights of SAM 3, whose tokenizer is that of CLIP."""
    return f"hf download {_CLIP} {TOKENIZER} --local-dir {shlex.quote(str(folder))}"


def checkpoint_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a checkpoint folder that s3seg reads, weights last."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return tuple(folder / name for name in wanted_files(names, folder))


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


def _has_tokenizer(names: Collection[str]) -> bool:
    return "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= set(names) or any(map(_is_bpe, names))


def _is_bpe(name: str) -> bool:
    return name.endswith(_BPE_SUFFIX) and "/" not in name
