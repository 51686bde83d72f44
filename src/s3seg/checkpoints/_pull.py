"""Download a checkpoint into the Hugging Face cache.

huggingface_hub answers what there is and where; the bytes are fetched here, because it starts a file anew
after an interruption (https://github.com/huggingface/huggingface_hub/pull/4228), and 3.4 GB deserve to be
resumed. The result has the cache's own layout, so that every other program finds the files too, and the other
way round.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3seg.checkpoints._gate import Asked, explain
from s3seg.checkpoints._layout import hub_cache, is_weights, missing_files, repo_folder, wanted_files
from s3seg.checkpoints._registry import KNOWN, Checkpoint, is_repo_id, resolve
from s3seg.checkpoints._verify import Progress, matches_etag
from s3seg.errors import CheckpointError, CheckpointNotFoundError

_TIMEOUT = 30.0  # seconds without a byte
_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each new try; any byte received starts over


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the repository: where to get it, and where it goes.

    ``blob`` holds the contents under their checksum, ``pointer`` is the name in the snapshot that links to
    it.
    """

    name: str
    url: str
    etag: str
    size: int | None
    blob: Path
    pointer: Path

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.etag}.s3seg-partial")

    @property
    def is_here(self) -> bool:
        return any(path.is_file() and self.size in (None, path.stat().st_size) for path in (self.pointer, self.blob))


def pull(
    name: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Bring a checkpoint to this machine, and only what is not here yet.

    An interrupted pull goes on where it stopped; every file is checked against the hub's checksum before it
    gets its name. Honours ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_ENDPOINT`` (a mirror), ``HF_TOKEN``,
    ``HF_HUB_OFFLINE`` and the token of ``hf auth login``.

    Args:
        name: A known name ("sam3") or a repo id ("org/repo").
        token: A Hugging Face token; by default the one of the environment or of ``hf auth login``.
        revision: Branch, tag or commit; main by default.
        progress: Told (file name, bytes here, bytes in all) as the bytes arrive.

    Returns:
        The checkpoint, whole.

    Raises:
        CheckpointNotFoundError: No such repository or revision, no access to it (the message tells how to get
            it), or the machine is offline.
        CheckpointError: The network or the disk failed, or what arrived is not what the hub has.
    """
    repo_id = _repo_id(name)
    if repo_id is None:
        return resolve(name)
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    asked = Asked(name, repo_id, revision, endpoint)
    if _is_set("HF_HUB_OFFLINE"):
        return _resolve_offline(asked)
    with _explained(asked):
        commit, files = _list_files(asked, token)
        missing = [file for file in files if not file.is_here]
        _check_disk(missing)
        for file in missing:
            _fetch(file, token, progress)
        for file in files:
            _link(file)
        _remember(repo_id, revision or "main", commit)
    snapshot = repo_folder(repo_id) / "snapshots" / commit
    if lacking := missing_files(snapshot):
        raise CheckpointError(f"{repo_id} is not a checkpoint of SAM 3: it has no {', '.join(lacking)}")
    return Checkpoint(name, snapshot, "hub", repo_id, commit)


def _repo_id(name: str) -> str | None:
    """The repository of a name; None for the checkpoint inside the package."""
    if name in KNOWN:
        return KNOWN[name].repo_id
    if not is_repo_id(name):
        raise CheckpointNotFoundError(
            f'cannot pull {name!r}: name one of {", ".join(KNOWN)}, or a repo id such as "facebook/sam3"'
        )
    return name


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _resolve_offline(asked: Asked) -> Checkpoint:
    try:
        return resolve(asked.repo_id, revision=asked.revision)
    except CheckpointNotFoundError as err:
        raise CheckpointNotFoundError(
            f"cannot pull {asked.name!r}: HF_HUB_OFFLINE forbids the network, and the files are not here; "
            f"unset it, or copy {repo_folder(asked.repo_id)} from a machine that has them"
        ) from err


@contextlib.contextmanager
def _explained(asked: Asked) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as err:
        raise explain(err, asked) from err


def _list_files(asked: Asked, token: str | None) -> tuple[str, list[_File]]:
    """Ask which commit it is, which of its files are needed, and the checksum and size of each."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    api = HfApi(endpoint=asked.endpoint, token=token, library_name="s3seg")
    info = api.model_info(asked.repo_id, revision=asked.revision, timeout=_TIMEOUT)
    names = wanted_files(sibling.rfilename for sibling in info.siblings or ())
    commit = info.sha
    if commit is None or not any(is_weights(name) for name in names):
        raise CheckpointNotFoundError(
            f"{asked.repo_id} has no weights that s3seg can read (model.safetensors, its shards, or sam3.pt)"
        )
    if not commit.isalnum():  # it becomes the name of a folder
        raise CheckpointError(f"{asked.endpoint} does not answer like a Hugging Face hub (commit {commit[:60]!r})")
    root = repo_folder(asked.repo_id)
    files = []
    for name in names:
        url = hf_hub_url(asked.repo_id, name, revision=commit, endpoint=asked.endpoint)
        metadata = get_hf_file_metadata(url, token=token, timeout=_TIMEOUT, endpoint=asked.endpoint)
        etag = metadata.etag
        if not etag or not etag.isalnum():  # it becomes a file name
            raise CheckpointError(f"{asked.endpoint} does not answer like a Hugging Face hub (no ETag for {name})")
        files.append(_File(name, url, etag, metadata.size, root / "blobs" / etag, root / "snapshots" / commit / name))
    return commit, files


def _check_disk(files: Sequence[_File]) -> None:
    """Refuse before the first byte what cannot fit."""
    here = sum(file.partial.stat().st_size for file in files if file.partial.is_file())
    needed = sum(file.size or 0 for file in files) - here
    folder = hub_cache()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"not enough room in {folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


def _fetch(file: _File, token: str | None, progress: Progress | None) -> None:
    """Download one file, going on with what is here already; it gets its name once its checksum is right."""
    from huggingface_hub.utils import WeakFileLock

    lock = hub_cache() / ".locks" / file.blob.parents[1].name / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    file.blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if file.is_here:  # another process was faster
            return
        _receive_with_retries(file, token, progress)
        if matches_etag(file.partial, file.etag) is False:
            file.partial.unlink()
            raise CheckpointError(f"{file.name}: what arrived does not have the hub's checksum; pull again")
        file.partial.replace(file.blob)


def _receive_with_retries(file: _File, token: str | None, progress: Progress | None) -> None:
    # Of httpx or of httpx2, by the version of huggingface_hub.
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    )

    waits = iter(_WAITS)
    while True:
        before = file.partial.stat().st_size if file.partial.is_file() else 0
        try:
            _receive(file, before, token, progress)
        except HfHubHTTPError as err:
            if err.response.status_code < 500:
                raise
            failure: Exception = err
        except HTTPError as err:
            failure = err
        else:
            return
        if file.partial.is_file() and file.partial.stat().st_size > before:
            waits = iter(_WAITS)
        wait = next(waits, None)
        if wait is None:
            raise failure
        time.sleep(wait)


def _receive(file: _File, offset: int, token: str | None, progress: Progress | None) -> None:
    """Append to the partial file what the server has beyond ``offset`` bytes."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if file.size is not None and offset == file.size:
        return
    if file.size is not None and offset > file.size:
        offset = 0
    headers = {**build_hf_headers(token=token, library_name="s3seg"), "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with get_session().stream("GET", file.url, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as response:
        hf_raise_for_status(response)
        resumed = response.status_code == 206
        done = offset if resumed else 0
        with file.partial.open("ab" if resumed else "wb") as partial:
            for chunk in response.iter_bytes():
                partial.write(chunk)
                done += len(chunk)
                if progress:
                    progress(file.name, done, file.size)
    if file.size is not None and done != file.size:
        file.partial.unlink()
        raise CheckpointError(f"{file.name}: {done} bytes arrived of {file.size}; pull again")


def _link(file: _File) -> None:
    """Give the contents their name in the snapshot: by a link, or by moving them where there are no links."""
    if file.pointer.is_file() and file.size in (None, file.pointer.stat().st_size):
        return
    file.pointer.parent.mkdir(parents=True, exist_ok=True)
    file.pointer.unlink(missing_ok=True)
    if not _is_set("HF_HUB_DISABLE_SYMLINKS"):
        with contextlib.suppress(OSError):  # Windows without developer mode, some network disks
            file.pointer.symlink_to(os.path.relpath(file.blob, file.pointer.parent))
            return
    file.blob.replace(file.pointer)


def _remember(repo_id: str, revision: str, commit: str) -> None:
    """Note which commit a branch or tag was, as the last step: until then the one before it stays in use."""
    if revision == commit:
        return
    reference = repo_folder(repo_id) / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    fresh = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
    fresh.write_text(commit)
    fresh.replace(reference)
