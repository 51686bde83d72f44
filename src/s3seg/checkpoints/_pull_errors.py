"""Turn the errors of a failed download into messages that say what to do."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from s3seg.checkpoints._known import NO_ACCOUNT
from s3seg.checkpoints._layout import hub_cache
from s3seg.errors import CheckpointError, CheckpointNotFoundError


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A checkpoint to download.

    Attributes:
        name: The name as typed.
        repo_id: Its repository on the hub.
        revision: Branch, tag or commit; None for main.
        endpoint: URL of the hub or mirror.
    """

    name: str
    repo_id: str
    revision: str | None
    endpoint: str


def explain(err: Exception, request: PullRequest) -> CheckpointError:
    """Return the error to raise for an exception of huggingface_hub, the network or the disk."""
    from huggingface_hub import errors

    if isinstance(err, errors.GatedRepoError):
        return CheckpointNotFoundError(_gated(err, request))
    if isinstance(err, errors.RepositoryNotFoundError):
        return CheckpointNotFoundError(
            f"repository {request.repo_id!r} not found at {request.endpoint}, "
            "or it is private and your token has no access to it; "
            "check the spelling, or log in with: hf auth login"
        )
    if isinstance(err, errors.RevisionNotFoundError):
        return CheckpointNotFoundError(
            f"{request.repo_id} has no revision {request.revision!r}; check its branches and tags on the hub"
        )
    if isinstance(err, errors.EntryNotFoundError):
        return CheckpointNotFoundError(
            f"{request.endpoint} lists a file of {request.repo_id} but does not serve it; "
            f"an incomplete mirror? Unset HF_ENDPOINT to use the hub itself. It answered: {err}"
        )
    if isinstance(err, errors.OfflineModeIsEnabled):
        return CheckpointNotFoundError(
            f"cannot pull {request.name!r}: HF_HUB_OFFLINE is set; unset it to use the network"
        )
    if isinstance(err, errors.HfHubHTTPError):
        return _http_status(err, request)
    if isinstance(err, errors.HTTPError):  # pyright: ignore[reportPrivateImportUsage]
        return CheckpointError(
            f"cannot reach {request.endpoint}, or the connection was lost: {err or type(err).__name__}; "
            "check the network and its proxy, then pull again to resume the download"
        )
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(
            f"the disk of {hub_cache()} is full; free some space, or set HF_HOME to a folder on a larger disk, "
            "then pull again to resume the download"
        )
    if isinstance(err, OSError):
        return CheckpointError(f"cannot write to {hub_cache()}: {err}; set HF_HOME to a folder that you can write to")
    return CheckpointError(
        f"{request.endpoint} does not answer like a Hugging Face hub ({type(err).__name__}: {err}); check HF_ENDPOINT"
    )


def _gated(err: Exception, request: PullRequest) -> str:
    status = getattr(getattr(err, "response", None), "status_code", None)
    state = (
        "your token is valid, but its account has not been granted access (yet), "
        "or it is a fine-grained token without permission to read gated repositories"
        if status == 403
        else "no valid token was sent"
    )
    server_message = getattr(err, "server_message", None)
    answer = f"\nThe hub answered: {server_message}" if server_message else ""
    return (
        f"{request.repo_id} is gated: you must accept its licence before you can download it, and {state}.\n"
        f"  1. Open https://huggingface.co/{request.repo_id}, log in, and accept the licence\n"
        "     (approval can take a while).\n"
        "  2. Log in on this machine with: hf auth login    (or set HF_TOKEN; create a token with read access at\n"
        "     https://huggingface.co/settings/tokens)\n"
        f"  3. Pull again: s3seg models pull {request.name}\n"
        "If your organisation runs a mirror, set HF_ENDPOINT to it. "
        "If you already have the files, pass their folder as the checkpoint instead."
        f"{answer}\n{NO_ACCOUNT}"
    )


def _http_status(err: Exception, request: PullRequest) -> CheckpointError:
    status = getattr(getattr(err, "response", None), "status_code", None)
    answer = getattr(err, "server_message", None) or str(err)
    if status == 401:
        return CheckpointNotFoundError(
            f"{request.endpoint} rejected the token: it has expired or is mistyped; "
            "log in again with: hf auth login, or correct or unset HF_TOKEN. "
            f"The hub answered: {answer}\n{NO_ACCOUNT}"
        )
    if status == 429:
        return CheckpointError(
            f"{request.endpoint} limits the rate of requests; wait some minutes and pull again. It answered: {answer}"
        )
    if status == 408 or status is None or status >= 500:
        return CheckpointError(f"{request.endpoint} answered {status}: {answer}; try again later")
    return CheckpointNotFoundError(
        f"{request.endpoint} answered {status} for {request.repo_id}: {answer}; "
        "pulling again will not help, check the name, the revision and HF_ENDPOINT"
        + (f".\n{NO_ACCOUNT}" if status == 403 else "")
    )
