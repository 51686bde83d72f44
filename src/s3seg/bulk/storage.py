"""Folders and pictures at addresses: paths of this machine, and ``s3://`` on any S3 server."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from pyarrow import fs

from s3seg import images
from s3seg.errors import (
    ConfigurationError,
    ForbiddenError,
    ImageDecodeError,
    InvalidRequestError,
    S3segError,
    UnavailableError,
)
from s3seg.results.files import write_atomically

S3 = "s3://"
_FILE = "file://"
_TIMEOUT_S = 30.0
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach an S3 server. What is None comes from the environment, as for AWS's own tools.

    Attributes:
        endpoint_url: Such as ``https://<account>.r2.cloudflarestorage.com``; None for AWS, or for ``AWS_ENDPOINT_URL``.
        access_key_id: None for ``AWS_ACCESS_KEY_ID``, AWS's configuration files, or the role of the machine.
        secret_access_key: The secret of the same key.
        region: None for the bucket's own, which AWS is asked for.
    """

    endpoint_url: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    region: str | None = None

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigurationError("an S3 access key needs its secret: give both of them, or neither")


def is_s3(address: str) -> bool:
    """Return whether an address is in a bucket."""
    return address.lower().startswith(S3)


def address_of(path: Path) -> str:
    """Return the address of a file: its absolute path, or a ``file://`` URI if the path is not valid Unicode."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the links
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        return absolute.as_uri()
    return str(absolute)


def shown(address: str) -> str:
    """Return an address for messages and results: a URL without its user name, password and fragment."""
    return images.without_credentials(address) if images.is_url(address) else address


def path_of(address: str) -> Path:
    """Return the local path of an address that is neither in a bucket nor a URL."""
    if address.startswith(_FILE):
        return Path(os.fsdecode(unquote_to_bytes(address.removeprefix(_FILE))))
    return Path(address)


def read_picture(address: str, s3: S3Access, *, max_bytes: int = images.MAX_BYTES) -> bytes:
    """Read the bytes of a picture at a path, an ``s3://`` address or an http(s) URL.

    Raises:
        ImageDecodeError: It does not exist, cannot be read, or is longer than ``max_bytes``.
        ForbiddenError: The S3 server refuses the object to this access key.
        UnavailableError: The S3 server does not respond, or not as it should.
    """
    if not is_s3(address):
        source = address if images.is_url(address) else path_of(address)
        return images.read_bytes(source, max_bytes=max_bytes)
    store, path = filesystem(address, s3)
    try:
        with _errors_named(address), store.open_input_stream(path) as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError as err:
        raise ImageDecodeError(f"{address}: there is no such object") from err
    if len(content) > max_bytes:
        raise ImageDecodeError(f"{address}: more than the {max_bytes} bytes that may be read (max_bytes)")
    return content


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was listed.

    Attributes:
        name: Its path below the folder that was listed, with "/" between folders.
        size: In bytes.
        modified_ns: Nanoseconds since 1970; None if unknown.
    """

    name: str
    size: int
    modified_ns: int | None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine, or a prefix in a bucket.

    Attributes:
        address: A path, or ``s3://bucket/prefix``.
        s3: How to reach the bucket.
    """

    address: str
    s3: S3Access = field(default_factory=S3Access)

    @classmethod
    def at(cls, address: str | os.PathLike[str], s3: S3Access | None = None) -> Folder:
        """Return the folder at an address as a user writes it; a path becomes absolute.

        Raises:
            InvalidRequestError: It is an address of another kind, or has no bucket.
        """
        text = os.fspath(address)
        if is_s3(text):
            text = S3 + text[len(S3) :].strip("/")
            if text == S3:
                raise InvalidRequestError("an s3:// address needs a bucket: s3://bucket/folder")
        elif "://" in text:
            raise InvalidRequestError(f"{text}: give a folder of this machine, or s3://bucket/folder")
        else:
            text = os.path.abspath(Path(text).expanduser())  # noqa: PTH100 - resolve() would follow the links
        return cls(text, s3 or S3Access())

    def path(self, name: str) -> str:
        """Return the address of a file in the folder."""
        return f"{self.address}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, or None if there is none of this name.

        Raises:
            UnavailableError: The S3 server does not respond.
            OSError: A local file cannot be read.
        """
        try:
            with self.open(name) as file:
                return file.read()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Open a file for reading at any position, as a ``pyarrow.NativeFile``.

        Raises:
            FileNotFoundError: There is none of this name.
            UnavailableError: The S3 server does not respond, also while the file is being read.
        """
        with opened(self.path(name), self.s3) as file:
            yield file

    def write(self, name: str, content: bytes) -> None:
        """Write a file completely or not at all, replacing an older one.

        Raises:
            UnavailableError: The S3 server does not respond.
            OSError: A local file cannot be written.
        """
        if not is_s3(self.address):
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            return
        store, path = filesystem(self.path(name), self.s3)
        with _errors_named(self.path(name)):
            stream = store.open_output_stream(path)
            stream.write(content)
            stream.close()  # not on an error: closing is what makes the object appear

    def sizes(self, name: str) -> dict[str, int]:
        """Return the size in bytes of each file directly in a subfolder; none if there is no such folder.

        Raises:
            UnavailableError: The S3 server does not respond.
        """
        if not is_s3(self.address):
            try:
                with os.scandir(self.path(name)) as entries:
                    return {one.name: one.stat().st_size for one in entries if one.is_file()}
            except FileNotFoundError:
                return {}
        store, path = filesystem(self.path(name), self.s3)
        return {one.base_name: one.size for one in _listed(store, path) if one.is_file}


def filesystem(address: str, s3: S3Access) -> tuple[fs.FileSystem, str]:
    """Return the file system of an address, and the path in it."""
    return (_s3(s3), address[len(S3) :]) if is_s3(address) else (fs.LocalFileSystem(), str(path_of(address)))


@contextlib.contextmanager
def opened(address: str, s3: S3Access) -> Iterator[Any]:
    """Open a file for reading at any position; see `Folder.open`."""
    store, path = filesystem(address, s3)
    with _errors_named(address), store.open_input_file(path) as file:
        yield file


def walk_bucket(address: str, s3: S3Access) -> Iterator[list[Entry]]:
    """Yield the objects whose address starts with this one, folder by folder, sorted by name in each.

    Only one folder is in memory at a time.

    Raises:
        UnavailableError: The S3 server does not respond.
    """
    store, path = filesystem(address, s3)
    folder, name = path.rstrip("/"), ""
    if not path.endswith("/") and "/" in path:
        with _errors_named(address):
            is_folder = store.get_file_info(path).type == fs.FileType.Directory
        if not is_folder:
            folder, _, name = path.rpartition("/")
    waiting = [(folder, name)]
    while waiting:
        here, start = waiting.pop()
        entries = [one for one in _listed(store, here) if one.base_name.startswith(start)]
        files = [one for one in entries if one.is_file]
        yield [Entry(one.path, one.size, one.mtime_ns) for one in sorted(files, key=lambda one: one.path)]
        folders = sorted((one.path for one in entries if not one.is_file), reverse=True)
        waiting += [(one, "") for one in folders]


def is_regular(path: Path) -> bool:
    """Return whether a path is a file, following links."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _listed(store: fs.FileSystem, path: str) -> list[Any]:
    with _errors_named(S3 + path):
        return store.get_file_info(fs.FileSelector(path, allow_not_found=True))


@functools.lru_cache(maxsize=8)
def _s3(access: S3Access) -> fs.S3FileSystem:
    endpoint = access.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    given: dict[str, Any] = {
        "access_key": access.access_key_id,
        "secret_key": access.secret_access_key,
        "region": access.region or ("auto" if endpoint and "AWS_REGION" not in os.environ else None),
    }
    if endpoint:
        scheme, _, host = endpoint.rstrip("/").rpartition("://")
        given |= {"endpoint_override": host, "scheme": scheme or "https"}
        for variable in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
            os.environ.setdefault(variable, "when_required")  # R2 and others do not know AWS's newer checksums
    return fs.S3FileSystem(
        **given,
        allow_delayed_open=True,  # a small object is one request, and so is there completely or not at all
        connect_timeout=_TIMEOUT_S,
        request_timeout=_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


@contextlib.contextmanager
def _errors_named(address: str) -> Iterator[None]:
    """Turn the errors of an S3 server, other than a missing object, into errors of ours; let those of a disk pass."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as err:
        if not is_s3(address):
            raise
        raise _store_error(address, err) from err


def _store_error(address: str, err: OSError) -> S3segError:
    if "ACCESS_DENIED" in str(err) or "HTTP status 403" in str(err):
        return ForbiddenError(f"{address}: the S3 server does not allow this with the access key: {err}")
    return UnavailableError(f"{address}: the S3 server did not answer as it should: {err}")
