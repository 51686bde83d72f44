"""Make errors.md from the error classes: ``python docs/reference/make_errors.py > docs/reference/errors.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from s3seg import errors
from s3seg.api.codes import ERROR_CODES
from s3seg.errors import S3segError


def page() -> str:
    """The codes of error bodies, and the classes that a program catches."""
    codes = "\n".join(
        f"| `{row.code}` | {row.status} | {row.description} | {_names(row.code)} |" for row in ERROR_CODES.values()
    )
    classes = "\n".join(_rows(S3segError, depth=0))
    return (
        "# Error codes\n\n"
        "Made from `s3seg.api.codes` and `s3seg.errors` by `docs/reference/make_errors.py`. What to do about\n"
        "the messages that people meet most is in [troubleshooting](../how-to/troubleshooting.md).\n\n"
        "## Codes of the services\n\n"
        "An error of a service has one of these in `error.code`. Codes are stable; messages are for people.\n"
        "The client of s3seg raises the class with the same code.\n\n"
        "| code | status | meaning | classes |\n|---|---|---|---|\n"
        f"{codes}\n\n"
        "## Classes\n\n"
        "Every error that s3seg raises on purpose is one of these. A class is indented below the one that it\n"
        "is derived from, so `except s3seg.errors.S3segError` catches all of them.\n\n"
        "| class | code | when |\n|---|---|---|\n"
        f"{classes}\n"
    )


def _names(code: str) -> str:
    classes = [
        each
        for each in vars(errors).values()
        if inspect.isclass(each) and issubclass(each, S3segError) and each.code == code
    ]
    return ", ".join(f"`{each.__name__}`" for each in classes)


def _rows(error: type[S3segError], *, depth: int) -> Iterator[str]:
    said = (inspect.getdoc(error) or "").splitlines()[0]
    also = [base.__name__ for base in error.__bases__ if not issubclass(base, S3segError) and base is not Exception]
    note = f" Also a `{also[0]}`." if also else ""
    yield f"| {'&emsp;' * depth}`{error.__name__}` | `{error.code}` | {said}{note} |"
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _rows(child, depth=depth + 1)


if __name__ == "__main__":
    print(page(), end="")
