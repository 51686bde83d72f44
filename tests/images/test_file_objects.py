"""File objects, streams and uploads of web frameworks as sources of a picture."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.datastructures import UploadFile

from s3seg import images
from s3seg.errors import ImageDecodeError
from s3seg.images.content import read_content
from tests.images.noise import NOISE, PNG, named_buffer, png


def test_file_objects_keep_the_name_of_their_file(path: Path) -> None:
    with path.open("rb") as file:
        assert images.load(file).source == str(path)
    assert images.load(named_buffer("cat.png")).source == "cat.png"
    assert images.load(named_buffer(path)).source == str(path)
    with tempfile.TemporaryFile() as file:  # its name is a number
        file.write(PNG)
        assert images.load(file).source is None


@pytest.mark.parametrize("position", [0, 1, 8, 100, len(PNG) - 1, len(PNG), len(PNG) + 10])
def test_a_file_object_is_read_wherever_it_stands(position: int) -> None:
    stream = io.BytesIO(PNG)
    stream.seek(position)
    assert np.array_equal(images.load(stream).pixels, NOISE)


def test_a_picture_at_the_position_is_preferred_to_one_at_the_beginning() -> None:
    other = png(NOISE[::-1].copy())
    stream = io.BytesIO(PNG + other)
    stream.seek(len(PNG))
    assert np.array_equal(images.load(stream).pixels, NOISE[::-1])


def test_a_buffer_that_was_just_written_is_read_from_its_beginning() -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    assert np.array_equal(images.load(buffer).pixels, NOISE)


@pytest.mark.parametrize(
    ("content", "position", "message"),
    [(b"", 0, "the file is empty"), (b"hello, text", 11, "text beginning with 'hello"), (PNG[:50], 50, "truncated")],
)
def test_errors_of_a_file_object_at_its_end_are_about_its_whole_content(
    content: bytes, position: int, message: str
) -> None:
    stream = io.BytesIO(content)
    stream.seek(position)
    with pytest.raises(ImageDecodeError, match=message):
        images.load(stream)


class ShortReads:
    """A stream like a socket: it returns less than was asked for, and cannot seek."""

    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self.stream.read(min(size, 7))


def test_a_stream_that_returns_less_than_asked_is_read_to_its_end() -> None:
    assert np.array_equal(images.load(ShortReads(PNG)).pixels, NOISE)
    with pytest.raises(ImageDecodeError, match="max_bytes"):
        images.load(ShortReads(PNG), max_bytes=len(PNG) - 1)
    assert images.load(ShortReads(PNG), max_bytes=len(PNG)).size == (24, 32)


def test_members_of_archives_and_spooled_files_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/noise.png", PNG)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        with archive.open("in/noise.png") as member:
            loaded = images.load(member)
        assert np.array_equal(loaded.pixels, NOISE)
        inside = images.load(zipfile.Path(archive, "in/noise.png"))
        assert np.array_equal(inside.pixels, NOISE)
        assert inside.source == str(tmp_path / "a.zip" / "in/noise.png")
        with pytest.raises(ImageDecodeError, match="cannot be read"):
            images.load(zipfile.Path(archive, "in/missing.png"))
    in_memory = io.BytesIO((tmp_path / "a.zip").read_bytes())
    with zipfile.ZipFile(in_memory) as archive:  # its paths have no text: str() of them is a TypeError
        unnamed = images.load(zipfile.Path(archive, "in/noise.png"))
        assert np.array_equal(unnamed.pixels, NOISE)
        assert unnamed.source is None
        with pytest.raises(ImageDecodeError, match="Path: cannot be read"):
            images.load(zipfile.Path(archive, "in/missing.png"))
    with tempfile.SpooledTemporaryFile() as file:
        file.write(PNG)
        assert np.array_equal(images.load(file).pixels, NOISE)


class AsyncFile:
    async def read(self, size: int = -1) -> bytes:
        return PNG


class HiddenAsyncFile:
    """Its read() looks synchronous, and returns an awaitable."""

    def read(self, size: int = -1) -> object:
        return AsyncFile().read(size)


def test_upload_objects_are_read_through_their_synchronous_file() -> None:
    for upload in (
        UploadFile(io.BytesIO(PNG), filename="a.png"),  # Starlette and FastAPI
        SimpleNamespace(file=io.BytesIO(PNG), filename="a.png"),  # aiohttp
        SimpleNamespace(read=io.BytesIO(PNG).read, filename="a.png", name="field"),  # Werkzeug
    ):
        loaded = images.load(upload)
        assert np.array_equal(loaded.pixels, NOISE)
        assert loaded.source is None


@pytest.mark.parametrize("source", [AsyncFile(), HiddenAsyncFile()])
def test_an_asynchronous_file_is_refused_with_the_remedy(source: object) -> None:
    with pytest.raises(ImageDecodeError, match=r"asynchronous; pass the bytes: await file\.read"):
        images.load(source)


def test_a_read_that_returns_no_bytes_is_refused() -> None:
    for value, message in ((None, "NoneType"), ("text", '"rb"'), ([1], "list")):
        with pytest.raises(ImageDecodeError, match=message):
            images.load(SimpleNamespace(read=lambda size, value=value: value))


def test_a_response_of_an_http_library_is_its_body() -> None:
    requests = pytest.importorskip("requests")
    plain = requests.Response()
    plain.status_code, plain._content = 200, PNG
    for response in (plain, httpx.Response(200, content=PNG)):
        assert np.array_equal(images.load(response).pixels, NOISE)
        assert images.load(response).source is None
        content = read_content(response)
        assert content is not None
        assert content.data == PNG
    with pytest.raises(ImageDecodeError, match="an HTML page"):
        images.load(httpx.Response(404, content=b"<html>not here</html>"))
    unread = httpx.Response(200, stream=httpx.ByteStream(PNG))
    for read in (images.load, read_content):
        with pytest.raises(ImageDecodeError, match="Response: the body of the response was not read"):
            read(unread)
