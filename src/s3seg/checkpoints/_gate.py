"""Why a pull failed, and what the user can do about it, in one message."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from s3seg.checkpoints._layout import hub_cache
from s3seg.errors import CheckpointError, CheckpointNotFoundError


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wanted: the name as typed, its repository and revision, and the hub or mirror asked."""

    name: str
    repo_id: str
    revision: str | None
    endpoint: str


def explain(err: Exception, asked: Asked) -> CheckpointError:
    """Translate what huggingface_hub, the network or the disk raised into an error for the user."""
    from huggingface_hub import errors

    if isinstance(err, errors.GatedRepoError):
        return CheckpointNotFoundError(_gated(err, asked))
    if isinstance(err, errors.RepositoryNotFoundError):
        return CheckpointNotFoundError(
            f"no repository {asked.repo_id!r} at {asked.endpoint}, "
            "or it is private and your token may not see it; "
            "check the spelling, or log in with: hf auth login"
        )
    if isinstance(err, errors.RevisionNotFoundError):
        return CheckpointNotFoundError(f"{asked.repo_id} has no revision {asked.revision!r}")
    if isinstance(err, errors.EntryNotFoundError):
        return CheckpointNotFoundError(f"{asked.endpoint} lists a file of {asked.repo_id} but does not have it: {err}")
    if isinstance(err, errors.OfflineModeIsEnabled):
        return CheckpointNotFoundError(f"cannot pull {asked.name!r}: HF_HUB_OFFLINE forbids the network; unset it")
    if isinstance(err, errors.HfHubHTTPError):
        return _http_status(err, asked)
    if isinstance(err, errors.HTTPError):  # pyright: ignore[reportPrivateImportUsage]
        return CheckpointError(
            f"cannot reach {asked.endpoint}, or the connection was lost: {err or type(err).__name__}; "
            f"check the network and its proxy, then pull again: it goes on where it stopped"
        )
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(
            f"the disk of {hub_cache()} is full; make room, or set HF_HOME to a folder on a larger disk, "
            "then pull again: it goes on where it stopped"
        )
    if isinstance(err, OSError):
        return CheckpointError(f"cannot write to {hub_cache()}: {err}; set HF_HOME to a folder of yours")
    return CheckpointError(
        f"{asked.endpoint} does not answer like a Hugging Face hub ({type(err).__name__}: {err}); check HF_ENDPOINT"
    )


def _gated(err: Exception, asked: Asked) -> str:
    status = getattr(getattr(err, "response", None), "status_code", None)
    state = (
        "your token works, but its account has not been given access (yet), "
        "or it is a fine-grained token without the right to read gated repositories"
        if status == 403
        else "no valid token was sent"
    )
    server_message = getattr(err, "server_message", None)
    said = f"\nThe hub said: {server_message}" if server_message else ""
    return (
        f"{asked.repo_id} is gated: only who has accepted its licence may download it, and {state}.\n"
        f"  1. Open https://huggingface.co/{asked.repo_id}, log in, and accept the licence\n"
        "     (approval can take a while).\n"
        "  2. Log in here with: hf auth login    (or set HF_TOKEN; make a token with read access at\n"
        "     https://huggingface.co/settings/tokens)\n"
        f"  3. Pull again: s3seg models pull {asked.name}\n"
        "If your organisation keeps a mirror, set HF_ENDPOINT to it; "
        "files that you have already need no pull: name their folder as the checkpoint."
        f"{said}"
    )


def _http_status(err: Exception, asked: Asked) -> CheckpointError:
    status = getattr(getattr(err, "response", None), "status_code", None)
    said = getattr(err, "server_message", None) or str(err)
    if status == 401:
        return CheckpointNotFoundError(
            f"{asked.endpoint} refused the token: it is expired or mistyped; "
            f"log in again with: hf auth login, or correct HF_TOKEN. The hub said: {said}"
        )
    if status == 429:
        return CheckpointError(f"{asked.endpoint} asks for fewer requests; wait some minutes and pull again. {said}")
    return CheckpointError(f"{asked.endpoint} answered {status}: {said}; try again later")
