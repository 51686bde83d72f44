"""The users that commands name, and the tokens they get."""

from __future__ import annotations

from typing import Annotated

import typer

from s3seg.errors import InvalidRequestError

User = Annotated[str, typer.Argument(metavar="USER", help="A UUID, or the name of a local user.")]


def user_id(name: str) -> str:
    """Return the id of a user: a UUID as it is, or that of the local user with this name.

    Raises:
        InvalidRequestError: The name is empty, or not valid UTF-8.
    """
    from s3seg.adapters.local_auth import user_id_of

    if not name.strip():
        raise InvalidRequestError("the name of the user is empty")
    try:
        return user_id_of(name)
    except UnicodeEncodeError:
        raise InvalidRequestError(f"the name of the user is not valid UTF-8: {name!r}") from None


def lifetime(seconds: int) -> str:
    """Return a number of seconds in words: "24 hours"."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
