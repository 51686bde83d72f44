"""Archives of all that a user has: whether one is whole, and where an incomplete one is to be continued."""

from __future__ import annotations

import contextlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_DESCRIPTION = 1 << 26


@dataclass(frozen=True, slots=True)
class Beginning:
    """What there is of an archive.

    Attributes:
        user_id: The user whose archive it is.
        cursor: Of the last item that is certainly whole.
    """

    user_id: str
    cursor: str


def is_whole(path: Path) -> bool:
    """Return whether an archive has arrived to its end: a proxy may have cut it without an error."""
    with path.open("rb") as file:
        place, end = 0, path.stat().st_size
        while place < end and (member := _member_at(file, place)) is not None and member.size >= 0:
            place += _BLOCK + -(-member.size // _BLOCK) * _BLOCK
            if member.name == "complete.json":
                return end == place + 2 * _BLOCK
    return False


def continue_at(path: Path) -> Beginning | None:
    """Cut an incomplete archive after its last whole item, and return what there is.

    An item is known to be whole once the next one has begun.

    Returns:
        None if there is nothing worth keeping: the file is then empty, or does not exist.
    """
    if not path.exists():
        return None
    with path.open("r+b") as file:
        items: list[tuple[int, dict[str, Any]]] = []  # the last two: where each begins, and its description
        user_id, place, end = "", 0, path.stat().st_size
        while place < end and (member := _member_at(file, place)) is not None and member.size >= 0:
            if member.name == "account.json":
                user_id = str(_description(file, place, member).get("user_id", ""))
            elif member.name.endswith(("/image.json", "/result.json")):
                found = _description(file, place, member)
                if not isinstance(found.get("cursor"), str):
                    break  # it is incomplete
                items = [*items[-1:], (place, found)]
            place += _BLOCK + -(-member.size // _BLOCK) * _BLOCK
        if len(items) < 2 or not user_id:
            file.truncate(0)
            return None
        file.truncate(items[1][0])
        return Beginning(user_id, items[0][1]["cursor"])


def _member_at(file: BinaryIO, place: int) -> tarfile.TarInfo | None:
    file.seek(place)
    with contextlib.suppress(tarfile.HeaderError):
        return tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    return None


def _description(file: BinaryIO, place: int, member: tarfile.TarInfo) -> dict[str, Any]:
    """Return the JSON of a member; empty if it is incomplete."""
    file.seek(place + _BLOCK)
    try:
        found = json.loads(file.read(min(member.size, _LONGEST_DESCRIPTION)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
