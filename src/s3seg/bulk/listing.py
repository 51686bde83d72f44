"""The pictures that an input names: a folder, a glob, a list of addresses, or a prefix in a bucket."""

from __future__ import annotations

import contextlib
import glob
import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import parquet

from s3seg import images
from s3seg.bulk.manifest import Listed
from s3seg.bulk.storage import S3, S3Access, address_of, is_regular, is_s3, opened, walk_bucket
from s3seg.errors import InvalidRequestError
from s3seg.images.sources import expand, image_suffixes, matches, pictures_below

_LISTS = (".txt", ".lst", ".list")
_COLUMNS = ("uri", "url", "path")
_WILDCARDS = frozenset("*?[")
_LONGEST = 8192  # characters of an address in a list


def source_of(source: str | os.PathLike[str]) -> str:
    """Return an input in the form that is stored and compared: addresses as given, paths absolute."""
    text = os.fspath(source)
    return text if is_s3(text) or images.is_url(text) else address_of(Path(text).expanduser())


def list_pictures(source: str, s3: S3Access) -> Iterator[Listed]:
    """Iterate over the pictures that an input names, in an order that does not depend on chance.

    - A folder: the pictures in it and in its subfolders, as `s3seg segment -r` finds them.
    - A pattern with wildcards, such as ``photos/**/*.jpg`` or ``s3://bucket/2024-*/*.jpg``.
    - A text file (``.txt``, ``.lst``, ``.list``) with a path, ``s3://`` address or URL on each line, or a Parquet file
      with such a column ``uri``, ``url`` or ``path``. Relative paths are relative to the current folder. The pictures
      are taken as named, whatever their suffix, and need not exist.
    - ``s3://bucket/prefix``: the pictures whose address starts with it.
    - A picture.

    Args:
        source: As `source_of` returns it.
        s3: How to reach S3.

    Raises:
        InvalidRequestError: There is no such input, or it is not one of these.
        UnavailableError: The S3 server does not respond.
    """
    if source.lower().endswith(_LISTS):
        return _in_text(source, s3)
    if source.lower().endswith(".parquet"):
        return _in_parquet(source, s3)
    if images.is_url(source):
        raise InvalidRequestError(f"{source}: a URL is one picture; name the URLs in a text file, one on each line")
    return _in_bucket(source, s3) if is_s3(source) else _on_this_machine(Path(source))


def _on_this_machine(path: Path) -> Iterator[Listed]:
    if path.is_dir():
        yield from map(_listed, pictures_below(path))
        return
    if not path.exists() and not glob.has_magic(str(path)):
        raise InvalidRequestError(f"{path}: there is no such file or folder")
    yield from (_listed(Path(found)) for found in expand([path]))


def _listed(path: Path) -> Listed:
    try:
        status = path.stat()
    except OSError:  # such as a link to nothing: its row will say so
        return Listed(address_of(path))
    return Listed(address_of(path), status.st_size, status.st_mtime_ns)


def _in_bucket(address: str, s3: S3Access) -> Iterator[Listed]:
    place = next((k for k, character in enumerate(address) if character in _WILDCARDS), None)
    prefix = address if place is None else address[:place].rpartition("/")[0] + "/"
    suffixes = image_suffixes()
    for entries in walk_bucket(prefix, s3):
        for one in entries:
            path = PurePosixPath(one.name)
            if place is None:
                wanted = path.suffix.lower() in suffixes and not path.name.startswith(".")
            else:
                wanted = matches(path.parts, PurePosixPath(address[len(S3) :]).parts)
            if wanted:
                yield Listed(S3 + one.name, one.size, one.modified_ns)


def _in_text(address: str, s3: S3Access) -> Iterator[Listed]:
    with _opened(address, s3) as file:
        lines = io.BufferedReader(file)  # type: ignore[arg-type]
        for number, line in enumerate(iter(lambda: lines.readline(_LONGEST + 2), b""), start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as err:
                raise InvalidRequestError(f"{address}: line {number} is not UTF-8") from err
            if text:
                yield Listed(_named(text, f"{address}: line {number}"))


def _in_parquet(address: str, s3: S3Access) -> Iterator[Listed]:
    with _opened(address, s3) as file:
        try:
            content = parquet.ParquetFile(file)
        except pa.ArrowInvalid as err:
            raise InvalidRequestError(f"{address}: this is not a Parquet file: {err}") from err
        names = content.schema_arrow.names
        column = next((name for name in _COLUMNS if name in names), None)
        if column is None:
            raise InvalidRequestError(
                f"{address}: a list of pictures needs a column {', '.join(_COLUMNS[:-1])} or {_COLUMNS[-1]}; "
                f"this one has {', '.join(names)}"
            )
        number = 0
        for batch in content.iter_batches(columns=[column]):
            for text in batch.column(0).to_pylist():
                number += 1
                if not isinstance(text, str):
                    raise InvalidRequestError(f"{address}: row {number} of {column} is not text: {text!r:.60}")
                yield Listed(_named(text, f"{address}: row {number}"))


def _named(text: str, where: str) -> str:
    """Return the address that a list names."""
    if not text or len(text) > _LONGEST or "\0" in text:
        raise InvalidRequestError(f"{where}: {text[:60]!r} is not the address of a picture")
    if is_s3(text) or images.is_url(text):
        return text
    if "://" in text and not text.startswith("file://"):
        raise InvalidRequestError(f"{where}: {text[:200]}: give paths, s3:// addresses or http(s) URLs")
    return text if text.startswith("file://") else address_of(Path(text).expanduser())


@contextlib.contextmanager
def _opened(address: str, s3: S3Access) -> Iterator[pa.NativeFile]:
    if not is_s3(address) and not is_regular(Path(address)):
        raise InvalidRequestError(f"{address}: there is no such file")
    try:
        with opened(address, s3) as file:
            yield file
    except FileNotFoundError as err:
        raise InvalidRequestError(f"{address}: there is no such object") from err
