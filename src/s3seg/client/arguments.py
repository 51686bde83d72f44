"""Check the arguments of the client's calls before anything is sent; `s3seg.local` takes the same."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TypeVar

from s3seg.api.fields import check_prompt
from s3seg.errors import ConfigurationError, InvalidRequestError, PromptError
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.limits import MAX_IDEMPOTENCY_KEY_CHARS, MAX_PROMPTS
from s3seg.tasks.prompts import normalize_prompts

_T = TypeVar("_T")


def check_prompts(prompt: str | Iterable[str]) -> list[str]:
    """Return one prompt or several as a list in their normal form, in order, with duplicates.

    Raises:
        PromptError: A prompt is empty, too long or not text, or there are none or too many.
    """
    prompts = normalize_prompts(prompt)
    for one in prompts:
        try:
            check_prompt(one)
        except ValueError as err:
            raise PromptError(str(err)) from None
    count = len(set(prompts))
    if not 1 <= count <= MAX_PROMPTS:
        raise PromptError(f"the service accepts 1 to {MAX_PROMPTS} prompts at a time, got {count}")
    return prompts


def without_duplicates(prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the prompts of the task that finds ``prompts``, which costs one credit for each."""
    return tuple(dict.fromkeys(prompts))


def check_objects(objects: Sequence[Clicks]) -> tuple[Clicks, ...]:
    """Return the objects of the task that finds ``objects``, each once, which costs one credit for each.

    Raises:
        InvalidRequestError: There are none or too many, or one is something else.
    """
    for one in objects:
        if not isinstance(one, Clicks):
            raise InvalidRequestError(f"an object must be Clicks, such as Clicks([(120, 80)]); got {one!r:.60}")
    unique = tuple(dict.fromkeys(objects))
    if not 1 <= len(unique) <= MAX_PROMPTS:
        raise InvalidRequestError(f"the service accepts 1 to {MAX_PROMPTS} objects at a time, got {len(unique)}")
    return unique


def one_each(prompts: Sequence[str], results: Sequence[_T]) -> list[_T]:
    """Return a result for each of ``prompts``, given those of `without_duplicates`, in order."""
    by_prompt = dict(zip(without_duplicates(prompts), results, strict=True))
    return [by_prompt[prompt] for prompt in prompts]


def require_pictures() -> None:
    """Check that the packages that read pictures and masks are installed, before anything is sent or paid for.

    Raises:
        ConfigurationError: One is not; the message says what to install.
    """
    for package in ("numpy", "PIL", "hotcoco"):
        if find_spec(package) is None:
            raise ConfigurationError(
                f"reading pictures and masks needs the package {package}; run: pip install 's3seg-slim[images]'"
            )


def check_numbers(threshold: float | None, max_instances: int | None) -> None:
    """Check a threshold and a number of instances.

    Raises:
        InvalidRequestError: One of them is out of its range.
    """
    from s3seg.results import instances_file  # imports numpy

    if threshold is not None and not instances_file.MIN_SCORE <= threshold <= 1:
        raise InvalidRequestError(
            f"the threshold must be between {instances_file.MIN_SCORE} (the service stores no instances below) and 1, "
            f"got {threshold}"
        )
    if max_instances is not None and max_instances < 1:
        raise InvalidRequestError(f"max_instances must be 1 or more, got {max_instances}")


def check_sources(sources: Iterable[_T]) -> Iterable[_T]:
    """Return the sources of a call that takes several images, or refuse what is one image.

    Raises:
        InvalidRequestError: It is text, a path or bytes, whose parts are no images.
    """
    if isinstance(sources, str | bytes | bytearray | memoryview | os.PathLike) or not isinstance(sources, Iterable):
        raise InvalidRequestError(
            f"segment_many takes several images, such as a list of paths, got {type(sources).__name__}; "
            "for one image use segment"
        )
    return sources


def check_id(text: str) -> str:
    """Return the id of a task, a result, an image or a project in its canonical form.

    Raises:
        InvalidRequestError: It is not a UUID.
    """
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise InvalidRequestError(f"an id must be a UUID, got {text!r:.60}") from None


def check_idempotency_key(key: str) -> str:
    """Return an idempotency key unchanged if it can be sent.

    Raises:
        InvalidRequestError: It cannot.
    """
    if not (1 <= len(key) <= MAX_IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable() and key == key.strip()):
        raise InvalidRequestError(
            f"an idempotency_key must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters, "
            f"without white space at its ends, got {key!r:.60}"
        )
    return key
