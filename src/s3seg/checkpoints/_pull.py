"""Download a checkpoint into the Hugging Face cache.

huggingface_hub lists the files of the repository; their contents are downloaded here, because huggingface_hub
restarts an interrupted file from the beginning (https://github.com/huggingface/huggingface_hub/pull/4228), and
the full checkpoint has 3.4 GB. Files are stored in the layout of the Hugging Face cache, so other programs can
use what s3seg downloaded, and the other way round.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3seg.checkpoints._layout import hub_cache, is_weights, missing_files, repo_folder, wanted_files
from s3seg.checkpoints._pull_errors import PullRequest, explain
from s3seg.checkpoints._registry import KNOWN, Checkpoint, is_repo_id, resolve
from s3seg.checkpoints._verify import Progress, matches_etag
from s3seg.errors import CheckpointError, CheckpointNotFoundError

_TIMEOUT = 30.0  # seconds without any data
_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each retry; receiving data starts over from the first


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the repository, with its URL and its paths in the cache.

    ``blob`` is the path of the contents, named by their checksum; ``pointer`` is the link to it in the snapshot.
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
    def is_complete(self) -> bool:
        return any(path.is_file() and self.size in (None, path.stat().st_size) for path in (self.pointer, self.blob))


def pull(
    name: str,
    *,
    token: str | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Download the files of a checkpoint that are not on this machine yet.

    An interrupted download is resumed. Every file is compared with the hub's checksum before it gets its final
    name. Honours ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_ENDPOINT`` (a mirror), ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and
    the token of ``hf auth login``.

    Args:
        name: A known name ("sam3") or a repo id ("org/repo").
        token: A Hugging Face token; by default that of the environment or of ``hf auth login``.
        revision: Branch, tag or commit; main by default.
        progress: Called with (file name, bytes received, total bytes) as data arrives.

    Returns:
        The complete checkpoint.

    Raises:
        CheckpointNotFoundError: The repository or revision does not exist, you have no access to it (the message
            says how to get it), or the machine is offline.
        CheckpointError: The network or the disk failed, or the data received differs from the hub's.
    """
    repo_id = _repo_id(name)
    if repo_id is None:
        return resolve(name)
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    request = PullRequest(name, repo_id, revision, endpoint)
    if _is_set("HF_HUB_OFFLINE"):
        return _resolve_offline(request)
    with _errors_explained(request):
        commit, files = _list_files(request, token)
        missing = [file for file in files if not file.is_complete]
        _check_disk(missing)
        for file in missing:
            _fetch(file, token, progress)
        for file in files:
            _link(file)
        _write_ref(repo_id, revision or "main", commit)
    snapshot = repo_folder(repo_id) / "snapshots" / commit
    if lacking := missing_files(snapshot):
        raise CheckpointError(f"{repo_id} is not a SAM 3 checkpoint: it has no {', '.join(lacking)}")
    return Checkpoint(name, snapshot, "hub", repo_id, commit)


def _repo_id(name: str) -> str | None:
    """Return the repository of a checkpoint; None for the one inside the package."""
    if name in KNOWN:
        return KNOWN[name].repo_id
    if not is_repo_id(name):
        raise CheckpointNotFoundError(
            f'cannot pull {name!r}: name one of {", ".join(KNOWN)}, or a repo id such as "facebook/sam3"'
        )
    return name


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}


def _resolve_offline(request: PullRequest) -> Checkpoint:
    try:
        return resolve(request.repo_id, revision=request.revision)
    except CheckpointNotFoundError as err:
        raise CheckpointNotFoundError(
            f"cannot pull {request.name!r}: HF_HUB_OFFLINE is set, and the files are not on this machine; "
            f"unset it, or copy {repo_folder(request.repo_id)} from a machine that has them"
        ) from err


@contextlib.contextmanager
def _errors_explained(request: PullRequest) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as err:
        raise explain(err, request) from err


def _list_files(request: PullRequest, token: str | None) -> tuple[str, list[_File]]:
    """Return the commit of the revision, and its needed files with their checksums and sizes."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    api = HfApi(endpoint=request.endpoint, token=token, library_name="s3seg")
    info = api.model_info(request.repo_id, revision=request.revision, timeout=_TIMEOUT)
    names = wanted_files(sibling.rfilename for sibling in info.siblings or ())
    commit = info.sha
    if commit is None or not any(is_weights(name) for name in names):
        raise CheckpointNotFoundError(
            f"{request.repo_id} has no weights that s3seg can read (model.safetensors, its shards, or sam3.pt)"
        )
    if not commit.isalnum():  # used as the name of a folder
        raise CheckpointError(f"{request.endpoint} does not answer like a Hugging Face hub (commit {commit[:60]!r})")
    root = repo_folder(request.repo_id)
    files = []
    for name in names:
        url = hf_hub_url(request.repo_id, name, revision=commit, endpoint=request.endpoint)
        metadata = get_hf_file_metadata(url, token=token, timeout=_TIMEOUT, endpoint=request.endpoint)
        etag = metadata.etag
        if not etag or not etag.isalnum():  # used as a file name
            raise CheckpointError(f"{request.endpoint} does not answer like a Hugging Face hub (no ETag for {name})")
        files.append(_File(name, url, etag, metadata.size, root / "blobs" / etag, root / "snapshots" / commit / name))
    return commit, files


def _check_disk(files: Sequence[_File]) -> None:
    """Raise an error if the disk has no room for the missing files."""
    received = sum(file.partial.stat().st_size for file in files if file.partial.is_file())
    needed = sum(file.size or 0 for file in files) - received
    folder = hub_cache()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"not enough disk space in {folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def _fetch(file: _File, token: str | None, progress: Progress | None) -> None:
    """Download a file, resuming a partial one; rename it to its final name once its checksum matches."""
    from huggingface_hub.utils import WeakFileLock

    lock = hub_cache() / ".locks" / file.blob.parents[1].name / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    file.blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if file.is_complete:  # another process downloaded it meanwhile
            return
        _receive_with_retries(file, token, progress)
        if matches_etag(file.partial, file.etag) is False:
            file.partial.unlink()
            raise CheckpointError(f"{file.name}: the data received does not match the hub's checksum; pull again")
        file.partial.replace(file.blob)


def _receive_with_retries(file: _File, token: str | None, progress: Progress | None) -> None:
    # HTTPError is that of httpx or of httpx2, depending on the version of huggingface_hub.
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
    """Append the bytes after ``offset`` to the partial file."""
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
        raise CheckpointError(f"{file.name}: received {done} of {file.size} bytes; pull again")


def _link(file: _File) -> None:
    """Create the file in the snapshot as a link to its blob, or move it there where links are not supported."""
    if file.pointer.is_file() and file.size in (None, file.pointer.stat().st_size):
        return
    file.pointer.parent.mkdir(parents=True, exist_ok=True)
    file.pointer.unlink(missing_ok=True)
    if not _is_set("HF_HUB_DISABLE_SYMLINKS"):
        with contextlib.suppress(OSError):  # Windows without developer mode, some network file systems
            file.pointer.symlink_to(os.path.relpath(file.blob, file.pointer.parent))
            return
    file.blob.replace(file.pointer)


def _write_ref(repo_id: str, revision: str, commit: str) -> None:
    """Record the commit of a branch or tag. This is the last step: until then, the previous commit stays in use."""
    if revision == commit:
        return
    reference = repo_folder(repo_id) / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    fresh = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
    fresh.write_text(commit)
    fresh.replace(reference)
