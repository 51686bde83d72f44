"""Names of checkpoints, and how a name is resolved to files on this machine."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s3seg.checkpoints._known import EMBEDDED, FULL, KNOWN, LITE_TEXT, NO_ACCOUNT, KnownCheckpoint
from s3seg.checkpoints._layout import (
    CONFIG,
    TOKENIZER,
    checkpoint_files,
    hub_cache,
    missing_files,
    repo_folder,
    snapshots,
    tokenizer_command,
)
from s3seg.checkpoints._licences import accepted_licences
from s3seg.checkpoints.weight_files import REFERENCE_FILES
from s3seg.errors import CheckpointError, CheckpointNotFoundError

ENVIRONMENT = "S3SEG_CHECKPOINT"
_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


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
        size: The size of its download or of its network, in words; empty if not known.
        licence: The names of its licences, or where to read about them.
        gated: Whether the hub asks for an account that has accepted the licence; None if not known.
    """

    name: str
    summary: str
    checkpoint: Checkpoint | None
    missing: tuple[str, ...]
    size_bytes: int
    size: str
    licence: str
    gated: bool | None


def resolve(name: str | Path | None = None, *, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint on this machine, without using the network.

    A known name ("embedded", "litetext", "sam3") takes precedence over a folder of that name (write ``./sam3`` for the
    folder); any other existing path takes precedence over a repo id with the same spelling. A repository is found
    once all needed files are in the Hugging Face cache, whichever program downloaded them.

    Args:
        name: A known name, a folder, a weights file, or a repo id ("org/repo"). None uses the environment
            variable ``S3SEG_CHECKPOINT`` if set, else the first of these that is on this machine: full SAM 3.1 or 3,
            from Meta or from another repository that was pulled with s3seg; SAM 3 with a light text encoder; the
            embedded one.
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
    return [_item(name) for name in (*KNOWN, *_other_cached_repos())]


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
    for name in (*FULL, *_pulled_full_repos(), *LITE_TEXT):
        with contextlib.suppress(CheckpointNotFoundError):
            return resolve(name)
    return resolve(EMBEDDED)


def _pulled_full_repos() -> list[str]:
    """Return the other repositories of full SAM 3 that were pulled with s3seg, so chosen by the user."""
    return [
        repo_id
        for repo_id in _other_cached_repos()
        if accepted_licences(repo_id) and not any(_is_lite_text(folder) for folder in snapshots(repo_id))
    ]


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
        if missing == (TOKENIZER,) and checkpoint.origin == "local":
            advice = f"SAM 3 uses the tokenizer of CLIP; add it with: {tokenizer_command(checkpoint.path)}"
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
    is_gated = any(known.gated for known in KNOWN.values() if known.repo_id == repo_id)
    gate = (
        f" ({repo_id} is gated: accept its licence first, at https://huggingface.co/{repo_id}).\n{NO_ACCOUNT}"
        if is_gated
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


def _item(name: str) -> InventoryItem:
    about = KNOWN.get(name) or _about_other(name)
    try:
        checkpoint, missing = resolve(name), ()
        on_disk = checkpoint.size_bytes
    except CheckpointError:
        checkpoint, missing = None, _missing(about.repo_id)
        on_disk = _bytes_in(repo_folder(about.repo_id)) if about.repo_id else 0
    return InventoryItem(name, about.summary, checkpoint, missing, on_disk, about.size, about.licence, about.gated)


def _about_other(repo_id: str) -> KnownCheckpoint:
    accepted = " and ".join(licence.name for licence in accepted_licences(repo_id))
    licence = accepted or f"licence: see https://huggingface.co/{repo_id}"
    return KnownCheckpoint(repo_id, repo_id, None, "in the Hugging Face cache", "", licence)


def _missing(repo_id: str | None) -> tuple[str, ...]:
    folders = list(snapshots(repo_id)) if repo_id else []
    try:
        return missing_files(folders[0]) if folders else ()
    except CheckpointError:  # several weight files, or an invalid index: nothing is known to be missing
        return ()


def _bytes_in(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _other_cached_repos() -> list[str]:
    """Return the repositories of SAM 3 in the Hugging Face cache that are not among the known ones."""
    known = {known.repo_id for known in KNOWN.values()}
    repo_ids = [folder.name.removeprefix("models--").replace("--", "/") for folder in hub_cache().glob("models--*--*")]
    return sorted(
        repo_id
        for repo_id in repo_ids
        if repo_id not in known and is_repo_id(repo_id) and any(_is_sam3(folder) for folder in snapshots(repo_id))
    )


def _is_sam3(folder: Path) -> bool:
    return _model_type(folder).startswith("sam3") or any((folder / name).is_file() for name in REFERENCE_FILES)


def _is_lite_text(folder: Path) -> bool:
    return _model_type(folder).startswith("sam3_lite_text")


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""
