"""Group results by picture, for exports. Names alone do not tell pictures apart: arrays have none, files may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeAlias
from urllib.parse import urlsplit

from s3seg.errors import InvalidRequestError
from s3seg.results.columns import Columns

Results: TypeAlias = "Columns | Iterable[Results]"
"""One result, or several: a list, a list of lists, a generator ..."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The results of one picture.

    Attributes:
        name: Its source, or "image-" and the start of its id; distinct from the names of the other pictures.
        results: At least one, in the order given.
    """

    name: str
    results: list[Columns]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.results[0].size


def as_list(results: Results) -> list[Columns]:
    """Return one result or several as a flat list.

    Raises:
        InvalidRequestError: It has something other than results.
    """
    return list(_flat(results))


def _flat(results: Results) -> Iterator[Columns]:
    if hasattr(results, "rles"):
        yield results  # type: ignore[misc]
    elif isinstance(results, Iterable) and not isinstance(results, str | bytes | dict):
        for one in results:
            yield from _flat(one)
    else:
        raise InvalidRequestError(
            f"expected a Segmentation or several of them, got {type(results).__name__}: {results!r:.60}; "
            "segment_many yields pairs, so pass [result for source, result in pairs]"
        )


def group_by_picture(results: Iterable[Columns]) -> list[Picture]:
    """Group results by picture, in order of appearance.

    Results are of the same picture if they have the same ``image_id``, or else

    - with a source: if their sources are equal, unless the ids show that the contents differ;
    - without a source: if their contents are equal and their prompts differ (the same prompt again is another picture
      with the same content, such as a frame of a video); without an id, if they hold the same array in memory.

    Raises:
        InvalidRequestError: Two results of one source differ in size, and have no ids.
    """
    alike: dict[object, list[Picture]] = {}  # pictures with the same source, or the same content
    pictures: list[Picture] = []
    names: set[str] = set()
    for result in results:
        candidates = alike.setdefault(_key(result), [])
        picture = next((one for one in candidates if _is_of(result, one)), None)
        if picture is None:
            picture = Picture(_distinct(_name(result, len(pictures) + 1), names), [])
            names.add(picture.name)
            candidates.append(picture)
            pictures.append(picture)
        elif picture.size != result.size:
            raise InvalidRequestError(
                f"two results for {picture.name} differ in size: give each picture its own source"
            )
        picture.results.append(result)
    return pictures


def base_names_of(pictures: Iterable[Picture]) -> list[str]:
    """Return the file name of each picture, without its folders or the rest of its URL.

    Raises:
        InvalidRequestError: Two pictures have the same file name.
    """
    found: dict[str, str] = {}
    for picture in pictures:
        name = PurePath(urlsplit(picture.name).path if "://" in picture.name else picture.name).name or picture.name
        if name in found:
            raise InvalidRequestError(
                f"{found[name]} and {picture.name} have the same file name; without base names, they stay apart"
            )
        found[name] = picture.name
    return list(found)


def check_one_picture(results: Iterable[Columns], remedy: str) -> None:
    """Check that results can be of the same picture. Results of unknown origin are taken to be.

    Raises:
        InvalidRequestError: They are of different pictures; the message ends with the remedy.
    """
    results = list(results)
    if len({result.size for result in results}) > 1:
        raise InvalidRequestError(f"these results differ in size, so they are not of one picture: {remedy}")
    known = [result for result in results if result.source is not None or result.image_id is not None]
    if len(pictures := group_by_picture(known)) > 1:
        names = f"{pictures[0].name} and {pictures[1].name}"
        raise InvalidRequestError(f"these results are of {len(pictures)} pictures, such as {names}: {remedy}")


def _key(result: Columns) -> object:
    if result.source is not None:
        return ("source", result.source)
    if result.image_id is not None:
        return ("content", _content(result))
    return ("memory", id(result if result.image is None else result.image))


def _is_of(result: Columns, picture: Picture) -> bool:
    """Return whether a result is of a picture with the same key."""
    first = picture.results[0]
    if first.image_id is None or result.image_id is None or first.image_id == result.image_id:
        return True
    if result.source is None:
        return all(result.prompt != other.prompt for other in picture.results)
    return _content(first) == _content(result) or _kind(first) != _kind(result)


def _content(result: Columns) -> str:
    """Return the part of an id that tells the content of the picture: "kind:digest" of "kind:digest:number"."""
    return ":".join((result.image_id or "").split(":")[:2])


def _kind(result: Columns) -> str:
    """Return what the digest in an id was made from; digests of different kinds say nothing about each other."""
    return (result.image_id or "").partition(":")[0]


def _name(result: Columns, number: int) -> str:
    if result.source:
        return result.source
    digest = _content(result).partition(":")[2]
    return f"image-{digest[:8] or number}"


def _distinct(name: str, taken: set[str]) -> str:
    path, number = PurePath(name), 1
    stem = name.removesuffix(path.suffix)
    while name in taken:
        number += 1
        name = f"{stem}-{number}{path.suffix}"
    return name
