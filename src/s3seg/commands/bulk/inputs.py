"""What the commands ``s3seg bulk`` have in common: prompts, S3 access, and the error of a missing extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3seg.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from s3seg.bulk.request import BulkRequest
    from s3seg.bulk.storage import S3Access

_MAX_BYTES = 2**20


def require(*packages: str) -> None:
    """Raise an error that says what to install if a package is missing.

    Raises:
        ConfigurationError: One is.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ConfigurationError(f"s3seg bulk needs {package}: pip install 's3seg[bulk]'")


def s3_access() -> S3Access:
    """Return the access that the settings ``S3SEG_R2_...`` describe, or else that of AWS's own variables.

    Raises:
        ConfigurationError: A setting cannot work.
    """
    from s3seg.app.settings import Settings
    from s3seg.bulk.storage import S3Access

    settings = Settings()
    if settings.r2_endpoint_url is None:
        return S3Access()
    secret = settings.r2_secret_access_key
    return S3Access(
        endpoint_url=settings.r2_endpoint_url,
        access_key_id=settings.r2_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )


def make_request(prompts: Sequence[str] | None, prompt_file: str | None, options: Mapping[str, Any]) -> BulkRequest:
    """Return the request of a command line.

    Args:
        prompts: The values of ``--prompt``.
        prompt_file: The value of ``--prompts``.
        options: The other arguments of `BulkRequest.make`.

    Raises:
        InvalidRequestError: There is no prompt, the file cannot be read, or an option cannot be used.
        CheckpointNotFoundError: The checkpoint is not on this machine.
    """
    from s3seg.bulk.request import BulkRequest

    words = [*(prompts or ()), *(_lines(prompt_file) if prompt_file else ())]
    if not words:
        raise InvalidRequestError("no prompt: say what to look for with -p, such as -p cat, or with --prompts FILE")
    return BulkRequest.make(words, **options)


def _lines(path: str) -> list[str]:
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except OSError as err:
        raise InvalidRequestError(f"--prompts {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise InvalidRequestError(f"--prompts {path}: this is not a text file in UTF-8") from err
    if len(content) > _MAX_BYTES:
        raise InvalidRequestError(f"--prompts {path}: more than {_MAX_BYTES} bytes")
    if not any(lines):
        raise InvalidRequestError(f"--prompts {path}: there is no prompt in it")
    return [line for line in lines if line]
