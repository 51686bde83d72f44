"""Reading an upload while it streams, so that one that is too large is refused early and never held in memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from s3seg.api.edge import UploadRequest
from s3seg.api.fields import explain
from s3seg.edge import Upload
from s3seg.errors import FileTooLargeError, InvalidRequestError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from s3seg.web.validation import require_uncompressed

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAY_LEAVE_BODIES = "s3seg.may_leave_bodies"
"""Key of a scope that is true if a client reads its response although nobody has read the whole body of its request."""

_FRAMING_BYTES = 64 * 1024  # boundaries, part headers and other fields around the file
_FIELD_BYTES = 1024
_PREAMBLE_BYTES = 8 * 1024
_BOUNDARY_BYTES = 70
_HEADER_BYTES = 4 * 1024  # of Content-Type, or of a part's header: parsing one takes longer than its length suggests
_GRACE_S = 20.0
_MIN_BYTES_PER_S = 32 * 1024  # after the grace period: slower senders would block an upload slot for too long
_DRAINED_BYTES = 64 * 1024 * 1024
_DRAIN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Form:
    """A form with one file.

    Attributes:
        file: The bytes of the file.
        fields: The fields that were asked for and sent, as text.
    """

    file: bytes
    fields: Mapping[str, str]


async def read_upload(request: Request) -> Upload:
    """Read the part ``file`` and the fields of `UploadRequest` of a ``multipart/form-data`` body.

    Raises:
        FileTooLargeError: The file, or the body as a whole, is too large; with and without ``Content-Length``.
        InvalidRequestError: The body is of another type or malformed, has no file or several, a project id that is
            not a UUID, or arrives too slowly.
    """
    form = await read_form(request, file="file", fields=UploadRequest.model_fields)
    try:
        fields = UploadRequest.model_validate(form.fields)
    except ValidationError as err:
        raise InvalidRequestError(explain(err)) from None
    return Upload(data=form.file, project_id=fields.project_id, expires_in_s=fields.expires_in_s)


async def read_form(request: Request, *, file: str, fields: Collection[str], field_bytes: int = _FIELD_BYTES) -> Form:
    """Read a ``multipart/form-data`` body of one file and some fields; other parts are skipped.

    Args:
        request: The request.
        file: Name of the part with the file, of at most 10 MB.
        fields: Names of the fields to read.
        field_bytes: Longest field.

    Raises:
        FileTooLargeError: The file, or the body as a whole, is too large; with and without ``Content-Length``.
        InvalidRequestError: The body is of another type or malformed, has no file or several, a field twice or one that
            is too long, or arrives too slowly.
    """
    chunks = request.stream()
    try:
        return await _read(request, _fast_enough(chunks), _Parts(file, fields, field_bytes))
    except (FileTooLargeError, InvalidRequestError):
        # a client that asked before sending has its answer
        if "expect" not in request.headers and not request.scope.get(MAY_LEAVE_BODIES):
            await _drain(chunks)
        raise


async def _read(request: Request, chunks: AsyncIterator[bytes], form: _Parts) -> Form:
    content_type = request.headers.get("content-type", "")
    if len(content_type) > _HEADER_BYTES:
        raise InvalidRequestError(f"the header field content-type is longer than {_HEADER_BYTES} bytes")
    require_uncompressed(request)
    kind, parameters = parse_options_header(content_type)
    boundary = _boundary(kind, parameters, form.file_name)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_UPLOAD_BYTES + _FRAMING_BYTES:
        raise _too_large()
    parser = MultipartParser(boundary, form.callbacks())
    preamble = _Preamble(boundary)
    received = 0
    try:
        async for chunk in chunks:
            received += len(chunk)
            if received > MAX_UPLOAD_BYTES + _FRAMING_BYTES:
                raise _too_large()
            parser.write(preamble.skip(chunk))
        parser.finalize()
    except FormParserError:
        raise InvalidRequestError("the multipart body is malformed") from None
    return form.form()


def _boundary(kind: bytes, parameters: Mapping[bytes, bytes], file_name: str) -> bytes:
    """Return the boundary that the header ``Content-Type`` names."""
    if kind != b"multipart/form-data":
        raise InvalidRequestError(f"the body must be multipart/form-data with a part named {file_name!r}")
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequestError(
            "the boundary is missing from Content-Type: let the HTTP library set that header, instead of setting it"
        )
    if len(boundary) > _BOUNDARY_BYTES:
        raise InvalidRequestError(f"the boundary in Content-Type is longer than {_BOUNDARY_BYTES} bytes")
    return boundary


class _Preamble:
    """Removes the lines that a body may have before its first boundary (RFC 2046, 5.1.1); the parser refuses them."""

    def __init__(self, boundary: bytes) -> None:
        self._first = re.compile(rb"(?:\A|(?<=\r\n))--" + re.escape(boundary) + rb"(?=\r\n|--)")
        self._longest_match = len(boundary) + 6
        self._head: bytearray | None = bytearray()  # what has come before the first boundary; None after that

    def skip(self, chunk: bytes) -> bytes:
        """Return what of ``chunk`` the parser is to read: nothing before the first boundary, everything after."""
        if self._head is None:
            return chunk
        searched = max(0, len(self._head) - self._longest_match)
        self._head += chunk
        found = self._first.search(self._head, searched)
        if found is None:
            if len(self._head) > _PREAMBLE_BYTES + self._longest_match:
                raise InvalidRequestError("the multipart body does not begin with the boundary in Content-Type")
            return b""
        rest = bytes(self._head[found.start() :])
        self._head = None
        return rest


async def _fast_enough(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    began, received = clock(), 0
    while True:
        try:
            async with asyncio.timeout_at(began + _GRACE_S + received / _MIN_BYTES_PER_S):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidRequestError(
                f"the body arrives too slowly: {received} bytes in {clock() - began:.0f} seconds; "
                f"send at least {_MIN_BYTES_PER_S // 1024} KiB per second"
            ) from None
        received += len(chunk)
        yield chunk


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read and discard what the client still sends, up to a limit: otherwise it would not read the response."""
    drained = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for chunk in chunks:
                drained += len(chunk)
                if drained > _DRAINED_BYTES:
                    return


def _too_large() -> FileTooLargeError:
    return FileTooLargeError(f"the file is larger than {MAX_UPLOAD_BYTES} bytes (10 MB)")


@dataclass(slots=True)
class _Parts:
    """The parts of a form as parsed so far; its methods are the parser's callbacks."""

    file_name: str
    field_names: Collection[str]
    field_bytes: int
    file: bytearray | None = None
    fields: dict[str, bytearray] = field(default_factory=dict)
    ended: bool = False
    _header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    _disposition: bytes = b""
    _part: bytearray | None = None
    _max_bytes: int = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.begin_part,
            "on_header_field": self.header_name,
            "on_header_value": self.header_value,
            "on_header_end": self.end_header,
            "on_headers_finished": self.end_headers,
            "on_part_data": self.part_data,
            "on_end": self.end,
        }

    def begin_part(self) -> None:
        self._disposition, self._part = b"", None
        self._header = (bytearray(), bytearray())

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._extend_header(0, data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._extend_header(1, data[start:end])

    def _extend_header(self, index: int, data: bytes) -> None:
        self._header[index].extend(data)
        if len(self._header[index]) > _HEADER_BYTES:
            raise InvalidRequestError("a header of a part of the form is too long")

    def end_header(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == self.file_name:
            if self.file is not None:
                raise InvalidRequestError(f"{name}: send only one file per request")
            self.file = self._part = bytearray()
            self._max_bytes = MAX_UPLOAD_BYTES
        elif name in self.field_names:
            if name in self.fields:
                raise InvalidRequestError(f"{name}: sent more than once")
            self.fields[name] = self._part = bytearray()
            self._max_bytes = self.field_bytes

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part is None:  # an unknown part
            return
        if len(self._part) + end - start > self._max_bytes:
            raise _too_large() if self._part is self.file else InvalidRequestError("a form field is too long")
        self._part += data[start:end]

    def end(self) -> None:
        self.ended = True

    def form(self) -> Form:
        if not self.ended:
            raise InvalidRequestError("the multipart body is incomplete: its final boundary is missing")
        if self.file is None:
            raise InvalidRequestError(f"{self.file_name}: send the picture as the part named {self.file_name!r}")
        return Form(bytes(self.file), {name: value.decode("utf-8", "replace") for name, value in self.fields.items()})
