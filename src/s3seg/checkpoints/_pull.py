"""Download a checkpoint into the Hugging Face cache.

huggingface_hub lists the files of the repository; their contents are downloaded here, because huggingface_hub
restarts an interrupted file from the beginning (https://github.com/huggingface/huggingface_hub/pull/4228), and
the full checkpoint has 3.4 GB. Files are stored in the layout of the Hugging Face cache, so other programs can
use what s3seg downloaded, and the other way round.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3seg.checkpoints._known import KNOWN
from s3seg.checkpoints._layout import (
    TOKENIZER,
    hub_cache,
    is_weights,
    missing_files,
    missing_from,
    repo_folder,
    tokenizer_command,
    wanted_files,
)
from s3seg.checkpoints._licences import LICENCE_FILES, Licence, accepted_licences, licences_of, record_acceptance
from s3seg.checkpoints._pull_errors import PullRequest, explain
from s3seg.checkpoints._registry import Checkpoint, is_repo_id, resolve
from s3seg.checkpoints._verify import Progress, matches_etag
from s3seg.checkpoints.weight_files import WEIGHT_FILES
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


@dataclass(frozen=True, slots=True)
class Offer:
    """What a pull is about to download.

    Attributes:
        name: The name as typed.
        repo_id: Its repository.
        source: Address of the repository, on the hub or on the mirror that is used.
        size_bytes: Size of all its files.
        download_bytes: Bytes of them that are not on this machine yet.
        licences: The licences that apply.
        gated: Whether the hub gives the files only to accounts that have accepted the licence there.
        accepted: Whether nothing has to be asked: the licences were accepted in an earlier pull and have not
            changed, or at the hub, or by ``accept_license``.
    """

    name: str
    repo_id: str
    source: str
    size_bytes: int
    download_bytes: int
    licences: tuple[Licence, ...]
    gated: bool
    accepted: bool


@dataclass(frozen=True, slots=True)
class _Listing:
    """A revision of a repository: its commit, the files to download and its licences."""

    commit: str
    files: list[_File]
    licences: tuple[Licence, ...]
    gated: bool


def pull(
    name: str,
    *,
    accept_license: bool = False,
    confirm: Callable[[Offer], bool] | None = None,
    token: str | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Download the files of a checkpoint that are not on this machine yet.

    An interrupted download is resumed. Every file is compared with the hub's checksum before it gets its final
    name. A token is sent only if there is one. Honours ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_ENDPOINT`` (a mirror),
    ``HF_TOKEN``, ``HF_HUB_OFFLINE`` and the token of ``hf auth login``.

    The licences of a repository without a gate have to be accepted before its first download. That is remembered,
    with the date, until the licences change.

    Args:
        name: A known name ("litetext", "sam3") or a repo id ("org/repo").
        accept_license: Accept the licences without being asked.
        confirm: Called before anything is downloaded, to show the offer and, unless it is `Offer.accepted`, to ask.
            Nothing is downloaded if it returns False.
        token: A Hugging Face token; by default that of the environment or of ``hf auth login``.
        revision: Branch, tag or commit; main by default.
        progress: Called with (file name, bytes received, total bytes) as data arrives.

    Returns:
        The complete checkpoint.

    Raises:
        CheckpointNotFoundError: The repository or revision does not exist, you have no access to it (the message
            says how to get it), or the machine is offline.
        CheckpointError: The licences were not accepted, the network or the disk failed, or the data received
            differs from the hub's.
    """
    repo_id = _repo_id(name)
    if repo_id is None:
        return resolve(name)
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    request = PullRequest(name, repo_id, revision, endpoint)
    if _is_set("HF_HUB_OFFLINE"):
        return _resolve_offline(request)
    with _errors_explained(request):
        listing = _list_files(request, token)
        missing = [file for file in listing.files if not file.is_complete]
        _check_disk(missing)
    if missing:
        offer = _offer(request, listing, missing, accept_license=accept_license)
        if not (confirm(offer) if confirm else offer.accepted):
            raise CheckpointError(_not_accepted(offer))
    with _errors_explained(request):
        if missing:
            record_acceptance(repo_id, listing.licences)
        for file in missing:
            _fetch(file, token, progress)
        for file in listing.files:
            _link(file)
        _write_ref(repo_id, revision or "main", listing.commit)
    snapshot = repo_folder(repo_id) / "snapshots" / listing.commit
    if lacking := missing_files(snapshot):
        raise CheckpointError(f"{repo_id} is not a complete checkpoint: it has no {', '.join(lacking)}")
    return Checkpoint(name, snapshot, "hub", repo_id, listing.commit)


def _offer(request: PullRequest, listing: _Listing, missing: Sequence[_File], *, accept_license: bool) -> Offer:
    accepted = accept_license or listing.gated or accepted_licences(request.repo_id) == listing.licences
    return Offer(
        name=request.name,
        repo_id=request.repo_id,
        source=f"{request.endpoint}/{request.repo_id}",
        size_bytes=sum(file.size or 0 for file in listing.files),
        download_bytes=sum(file.size or 0 for file in missing) - _received(missing),
        licences=listing.licences,
        gated=listing.gated,
        accepted=accepted,
    )


def _not_accepted(offer: Offer) -> str:
    licences = "".join(f"\n  {licence.name}, for {licence.covers}: {licence.url}" for licence in offer.licences)
    return (
        f"the licences of {offer.repo_id} were not accepted, so nothing was downloaded:{licences}\n"
        f"To accept them: s3seg models pull {offer.name} --accept-license "
        "(in Python: s3seg.checkpoints.pull(..., accept_license=True))"
    )


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


def _list_files(request: PullRequest, token: str | None) -> _Listing:
    """Ask the hub for the files that are needed, with their checksums and sizes, and for the licences."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=request.endpoint, token=token, library_name="s3seg")
    info = api.model_info(request.repo_id, revision=request.revision, timeout=_TIMEOUT)
    listed = [sibling.rfilename for sibling in info.siblings or ()]
    commit = info.sha
    names = _names_to_pull(request, listed)
    if commit is None or not commit.isalnum():  # used as the name of a folder
        raise CheckpointError(f"{request.endpoint} does not answer like a Hugging Face hub (commit {commit!r:.60})")
    files = [_ask_for_file(request, commit, name, token) for name in names]
    licence_file = next((file for file in files if file.name in LICENCE_FILES), None)
    licences = licences_of(
        request.repo_id,
        info.card_data.to_dict() if info.card_data else {},
        revision=request.revision or "main",
        file=licence_file.name if licence_file else None,
        text_hash=licence_file.etag if licence_file else None,
    )
    return _Listing(commit, files, licences, bool(info.gated))


def _names_to_pull(request: PullRequest, listed: Sequence[str]) -> list[str]:
    """Select the files to download, the licence first.

    Raises:
        CheckpointNotFoundError: The repository lacks a file that s3seg needs. Checked before gigabytes are downloaded.
    """
    names = wanted_files(listed, request.repo_id)
    if not any(is_weights(name) for name in names):
        raise CheckpointNotFoundError(
            f"{request.repo_id} has no weights that s3seg can read ({', '.join(WEIGHT_FILES)}, "
            "or a single .safetensors or .pt file)"
        )
    lacking = missing_from(listed, request.repo_id)
    if lacking == (TOKENIZER,):
        folder = f"./{request.repo_id.replace('/', '-')}"
        files = shlex.join(names) + (f" --revision {shlex.quote(request.revision)}" if request.revision else "")
        raise CheckpointNotFoundError(
            f"{request.repo_id} has weights but no {TOKENIZER}, so it was not downloaded. SAM 3 uses the tokenizer of "
            "CLIP, which other repositories have. To put both into a folder and use it:\n"
            f"  hf download {request.repo_id} {files} --local-dir {folder}\n"
            f"  {tokenizer_command(folder)}\n"
            f"  s3seg models verify {folder} --try"
        )
    if lacking:
        raise CheckpointNotFoundError(
            f"{request.repo_id} has weights but no {' and no '.join(lacking)}, so it was not downloaded. Download the "
            "weights into a folder by other means, add what is missing (from the repository that these weights derive "
            "from), and pass the folder as the checkpoint"
        )
    return [*[name for name in LICENCE_FILES if name in listed][:1], *names]


def _ask_for_file(request: PullRequest, commit: str, name: str, token: str | None) -> _File:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    root = repo_folder(request.repo_id)
    url = hf_hub_url(request.repo_id, name, revision=commit, endpoint=request.endpoint)
    metadata = get_hf_file_metadata(url, token=token, timeout=_TIMEOUT, endpoint=request.endpoint)
    etag = metadata.etag
    if not etag or not etag.isalnum():  # used as a file name
        raise CheckpointError(f"{request.endpoint} does not answer like a Hugging Face hub (no ETag for {name})")
    return _File(name, url, etag, metadata.size, root / "blobs" / etag, root / "snapshots" / commit / name)


def _check_disk(files: Sequence[_File]) -> None:
    """Raise an error if the disk has no room for the missing files."""
    needed = sum(file.size or 0 for file in files) - _received(files)
    folder = hub_cache()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"not enough disk space in {folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def _received(files: Sequence[_File]) -> int:
    """Return the bytes that an interrupted download has left."""
    return sum(file.partial.stat().st_size for file in files if file.partial.is_file())


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
