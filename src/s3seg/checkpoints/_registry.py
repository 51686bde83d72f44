"""Names of checkpoints, and how a name is resolved to files on this machine."""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3seg.checkpoints._layout import (
    CONFIG,
    REFERENCE_WEIGHTS,
    checkpoint_files,
    hub_cache,
    missing_files,
    repo_folder,
    snapshots,
)
from s3seg.errors import CheckpointError, CheckpointNotFoundError

EMBEDDED = "embedded"
FULL = "sam3"
ENVIRONMENT = "S3SEG_CHECKPOINT"
_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class KnownCheckpoint:
    """A checkpoint with a short name.

    Attributes:
        name: The name that users type.
        repo_id: Its repository on the Hugging Face hub; None for the one inside the package.
        gated: Whether its licence must be accepted before it can be downloaded.
        summary: A one-line description.
    """

    name: str
    repo_id: str | None
    gated: bool
    summary: str


KNOWN = {
    known.name: known
    for known in (
        KnownCheckpoint(EMBEDDED, None, False, "small, inside the package: for pictograms, shapes and colours"),
        KnownCheckpoint(
            FULL, "facebook/sam3", True, "full SAM 3, 840 M parameters, 3.4 GB: for photographs and any other picture"
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint on this machine.

    Attributes:
        name: The name by which it was requested: a known name, a repo id or a path.
        path: Its folder, or the weights file if a single file was named.
        origin: "embedded" (inside the package), "hub" (in the Hugging Face cache) or "local" (any other path).
        repo_id: Its repository, if it came from the hub.
        commit: The commit of that repository.
    """

    name: str
    path: Path
    origin: Literal["embedded", "hub", "local"]
    repo_id: str | None = None
    commit: str | None = None

    @property
    def version(self) -> str:
        """The version of the model in results: "embedded", "facebook/sam3@1a2b3c4d", or the path."""
        if self.repo_id is None:
            return self.name
        return f"{self.repo_id}@{self.commit[:8]}" if self.commit else self.repo_id

    @property
    def folder(self) -> Path:
        """The folder with the tokenizer and the configuration."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that s3seg reads."""
        return checkpoint_files(self.path) if self.path.is_dir() else (self.path,)

    @property
    def size_bytes(self) -> int:
        """Total size of its files in bytes."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True, slots=True)
class InventoryItem:
    """A checkpoint that can be used or downloaded.

    Attributes:
        name: The name to pass to :func:`resolve` or :func:`~s3seg.checkpoints.pull`.
        summary: A one-line description.
        checkpoint: Its files; None if it is not on this machine, or incomplete.
        missing: Names of missing files if it is on this machine only in part; empty otherwise.
        size_bytes: Bytes on disk, including unfinished downloads.
    """

    name: str
    summary: str
    checkpoint: Checkpoint | None
    missing: tuple[str, ...]
    size_bytes: int


def resolve(name: str | Path | None = None, *, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint on this machine, without using the network.

    A known name ("embedded", "sam3") takes precedence over a folder of that name (write ``./sam3`` for the
    folder); any other existing path takes precedence over a repo id with the same spelling. A repository is found
    once all needed files are in the Hugging Face cache, whichever program downloaded them.

    Args:
        name: A known name, a folder, a weights file, or a repo id ("org/repo"). None uses the environment
            variable ``S3SEG_CHECKPOINT`` if set, else full SAM 3 if it is on this machine, else the embedded one.
        revision: Branch, tag or commit of a repository; by default main, else the newest complete one.

    Raises:
        CheckpointNotFoundError: It is not on this machine, or incomplete; the message says how to get it.
        CheckpointError: One of its files is invalid.
    """
    if name is None:
        return _default()
    text = str(name)
    if text == EMBEDDED:
        return _complete(Checkpoint(EMBEDDED, _embedded_folder(), "embedded"))
    known = KNOWN.get(text)
    path = Path(text).expanduser()
    if known is None and text.strip() and _exists(path):
        return _local(text, path)
    repo_id = known.repo_id if known else text
    if repo_id is not None and is_repo_id(repo_id):
        return _in_hub_cache(text, repo_id, revision)
    raise CheckpointNotFoundError(_unknown(text))


def inventory() -> list[InventoryItem]:
    """List the known checkpoints, then all other SAM 3 checkpoints in the Hugging Face cache."""
    named = [_item(known.name, known.repo_id, known.summary) for known in KNOWN.values()]
    named_repos = {known.repo_id for known in KNOWN.values()}
    others = [repo_id for repo_id in _cached_sam3_repos() if repo_id not in named_repos]
    return named + [_item(repo_id, repo_id, "in the Hugging Face cache") for repo_id in others]


def is_repo_id(text: str) -> bool:
    """Return whether a text has the form of a repo id: "org/repo"."""
    return _REPO_ID.fullmatch(text) is not None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _default() -> Checkpoint:
    if named := os.environ.get(ENVIRONMENT, "").strip():
        try:
            return resolve(named)
        except CheckpointError as err:
            raise type(err)(f"{ENVIRONMENT} is set to {named!r}: {err}") from err
    try:
        return resolve(FULL)
    except CheckpointNotFoundError:
        return resolve(EMBEDDED)


def _embedded_folder() -> Path:
    return Path(__file__).parent / "embedded"


def _local(name: str, path: Path) -> Checkpoint:
    if path.is_file() and path.suffix not in (".safetensors", ".pt", ".pth"):
        raise CheckpointError(
            f"{path}: not a weights file; name a folder, or a file that ends in .safetensors, .pt or .pth"
        )
    checkpoint = Checkpoint(name, path, "local")
    return _complete(checkpoint) if path.is_dir() else checkpoint


def _complete(checkpoint: Checkpoint) -> Checkpoint:
    if missing := missing_files(checkpoint.path):
        advice = (
            "reinstall s3seg"
            if checkpoint.origin == "embedded"
            else "copy the missing files there, or name another folder"
        )
        raise CheckpointNotFoundError(
            f"{checkpoint.path}: incomplete checkpoint, {', '.join(missing)} missing; {advice}"
        )
    return checkpoint


def _in_hub_cache(name: str, repo_id: str, revision: str | None) -> Checkpoint:
    folders = list(snapshots(repo_id, revision))
    for folder in folders:
        if not missing_files(folder):
            return Checkpoint(name, folder, "hub", repo_id, folder.name)
    at = f" --revision {revision}" if revision else ""
    found = f"incomplete ({', '.join(missing_files(folders[0]))} missing)" if folders else "not"
    known = KNOWN.get(name)
    gate = (
        f" ({repo_id} is gated: accept its licence first, at https://huggingface.co/{repo_id})"
        if (known and known.gated)
        else ""
    )
    raise CheckpointNotFoundError(
        f"the checkpoint {name!r} is {found} on this machine (looked in {repo_folder(repo_id)}); "
        f"download it with: s3seg models pull {name}{at}{gate}"
    )


def _unknown(text: str) -> str:
    close = difflib.get_close_matches(text.lower(), KNOWN, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"no checkpoint {text!r}: there is no such file or folder; {meant}"
        f'name one of {", ".join(KNOWN)}, a folder, a weights file, or a repo id such as "facebook/sam3"'
    )


def _item(name: str, repo_id: str | None, summary: str) -> InventoryItem:
    try:
        checkpoint = resolve(name)
        return InventoryItem(name, summary, checkpoint, (), checkpoint.size_bytes)
    except CheckpointError:
        folders = list(snapshots(repo_id)) if repo_id else []
        missing = missing_files(folders[0]) if folders else ()
        return InventoryItem(name, summary, None, missing, _bytes_in(repo_folder(repo_id)) if repo_id else 0)


def _bytes_in(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _cached_sam3_repos() -> list[str]:
    cache = hub_cache()
    repo_ids = [folder.name.removeprefix("models--").replace("--", "/") for folder in cache.glob("models--*--*")]
    return sorted(
        repo_id
        for repo_id in repo_ids
        if is_repo_id(repo_id) and any(_is_sam3(folder) for folder in snapshots(repo_id))
    )


def _is_sam3(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return str(config.get("model_type", "")).startswith("sam3")
    except (OSError, ValueError, AttributeError):
        return (folder / REFERENCE_WEIGHTS).is_file()
