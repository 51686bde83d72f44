"""Every kind of source that can be loaded, and the name that the picture gets from it."""

from __future__ import annotations

import base64
import io
import os
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.datastructures import UploadFile

from s3seg import images
from s3seg.errors import ImageDecodeError
from s3seg.images.content import read_content

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def _png(pixels: np.ndarray = NOISE) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PNG = _png()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    path.write_bytes(PNG)
    return path


class PathLike:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def _named_buffer(name: object) -> io.BytesIO:
    buffer = io.BytesIO(PNG)
    buffer.name = name
    return buffer


# Names


def test_paths_of_every_type_keep_the_path_as_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = os.scandir(path.parent)
    (bytes_entry,) = os.scandir(os.fsencode(path.parent))
    for source in (path, str(path), PathLike(path), entry, bytes_entry):
        loaded = images.load(source)
        assert np.array_equal(loaded.pixels, NOISE)
        assert loaded.source == str(path)
    monkeypatch.chdir(path.parent)
    assert images.load("noise.png").source == "noise.png"


@pytest.mark.parametrize(
    "source",
    [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        io.BytesIO(PNG),
        NOISE,
        torch.from_numpy(NOISE.copy()),
        Image.fromarray(NOISE),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        UploadFile(io.BytesIO(PNG), filename="image.png"),
        _named_buffer(3),  # a file descriptor, as of os.fdopen
        _named_buffer(None),
        _named_buffer(""),
    ],
    ids=lambda source: type(source).__name__,
)
def test_sources_without_a_name_of_their_own_get_none(source: object) -> None:
    loaded = images.load(source)
    assert np.array_equal(loaded.pixels, NOISE)
    assert loaded.source is None
    assert images.load(NOISE, name="frame 7").source == "frame 7"


def test_a_given_name_replaces_every_other(path: Path) -> None:
    with Image.open(path) as picture, path.open("rb") as file:
        for source in (path, str(path), PNG, picture, file, NOISE):
            assert images.load(source, name="cat").source == "cat"


def test_file_objects_keep_the_name_of_their_file(path: Path) -> None:
    with path.open("rb") as file:
        assert images.load(file).source == str(path)
    assert images.load(_named_buffer("cat.png")).source == "cat.png"
    assert images.load(_named_buffer(path)).source == str(path)
    with tempfile.TemporaryFile() as file:  # its name is a number
        file.write(PNG)
        assert images.load(file).source is None


def test_pil_pictures_keep_the_name_of_their_file_and_tell_their_frames_apart(path: Path, tmp_path: Path) -> None:
    with Image.open(path) as picture:
        assert images.load(picture).source == str(path)
        assert images.load(picture.convert("L")).source is None
    with Image.open(io.BytesIO(PNG)) as picture:
        assert images.load(picture).source is None
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as film:
        names = []
        for number in range(3):
            film.seek(number)
            names.append(images.load(film).source)
    assert names == [f"{tmp_path / 'a.gif'}{suffix}" for suffix in ("", "#frame=1", "#frame=2")]


def test_messages_about_a_source_without_a_name_describe_it() -> None:
    for source, description in (
        (b"x", "1 bytes: "),
        (io.BytesIO(b"x"), "file object: "),
        (UploadFile(io.BytesIO(b"x"), filename="cat.png"), "cat.png: "),
        (np.zeros((2, 2), np.int64), "array (2, 2) int64: "),
        ("data:text/plain,hello", "data: URL: "),
    ):
        with pytest.raises(ImageDecodeError) as caught:
            images.load(source)
        assert str(caught.value).startswith(description)


# File objects


@pytest.mark.parametrize("position", [0, 1, 8, 100, len(PNG) - 1, len(PNG), len(PNG) + 10])
def test_a_file_object_is_read_wherever_it_stands(position: int) -> None:
    stream = io.BytesIO(PNG)
    stream.seek(position)
    assert np.array_equal(images.load(stream).pixels, NOISE)


def test_a_picture_at_the_position_is_preferred_to_one_at_the_beginning() -> None:
    other = _png(NOISE[::-1].copy())
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


# Upload objects of web frameworks


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


# data: URLs


def test_data_urls_are_decoded_whatever_their_encoding() -> None:
    encoded = base64.b64encode(PNG).decode()
    for url in (
        f"data:image/png;base64,{encoded}",
        f"data:;base64,{encoded}",
        f"DATA:image/jpeg;charset=utf-8;BASE64,{encoded}",  # the bytes decide about the format
        f"  data:image/png;base64,{encoded}\n",
        "data:image/png;base64," + "\n".join(encoded[i : i + 76] for i in range(0, len(encoded), 76)),
        "data:image/png;base64," + encoded.rstrip("="),
        "data:image/png;base64," + encoded.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:image/png;base64," + base64.urlsafe_b64encode(PNG).decode(),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
    ):
        assert np.array_equal(images.load(url).pixels, NOISE)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,iVBOR!", "base64 is malformed"),
        ("data:image/png;base64,", "the file is empty"),
        ("data:image/png;base64," + base64.b64encode(PNG).decode()[:80], "truncated"),
        ("data:text/html,<html>", "an HTML page"),
    ],
)
def test_a_data_url_without_a_picture_says_why_and_is_not_repeated(url: str, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(url)
    assert str(caught.value).startswith("data: URL: ")
    assert url[20:] not in str(caught.value) or len(url) < 25


def test_a_data_url_is_limited_like_a_download() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    with pytest.raises(ImageDecodeError, match="max_bytes"):
        images.load(url, max_bytes=len(PNG) - 1)


# Arrays


class OnTheGpu:
    def __array__(self, *args: object, **options: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


class Interface:
    __array_interface__ = NOISE.__array_interface__


def test_arrays_are_taken_by_protocol_and_a_refused_conversion_says_why() -> None:
    assert np.array_equal(images.load(Interface()).pixels, NOISE)
    with pytest.raises(ImageDecodeError, match=r"Implicit conversion .* convert it yourself"):
        images.load(OnTheGpu())


# PIL pictures


def test_a_closed_pil_picture_is_not_called_damaged(path: Path) -> None:
    with Image.open(path) as picture:
        pass
    with pytest.raises(ImageDecodeError, match="its file has been closed"):
        images.load(picture)


def _with_exif(path: Path, *, size_in_exif: bool = True) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    if size_in_exif:
        exif.get_ifd(0x8769)[0xA002], exif.get_ifd(0x8769)[0xA003] = 32, 24
    Image.fromarray(NOISE).save(path, exif=exif)
    return Image.open(path)


def test_a_picture_that_was_turned_with_pil_is_not_turned_again(tmp_path: Path) -> None:
    upright = np.rot90(NOISE, -1)
    with _with_exif(tmp_path / "a.png") as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_270)
        for source in (picture, picture.convert("RGB"), turned, turned.copy()):
            assert np.array_equal(images.load(source).pixels, upright)
        assert images.load(picture).notes == ()
        assert images.load(turned).notes == ("EXIF orientation 6 was not applied, the pixels are turned already",)
        assert images.load(turned).steps == ()


def test_a_file_that_was_turned_and_kept_its_tag_is_shown_as_viewers_do_with_a_note(tmp_path: Path) -> None:
    with _with_exif(tmp_path / "a.png") as picture:
        picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "b.png", exif=picture.getexif())
    loaded = images.load(tmp_path / "b.png")
    assert np.array_equal(loaded.pixels, np.rot90(NOISE, -2))
    assert loaded.notes == ("EXIF orientation 6 was applied, but the pixels seem to be turned already",)


def test_a_turned_picture_without_a_size_in_its_exif_data_is_turned(tmp_path: Path) -> None:
    with _with_exif(tmp_path / "a.png", size_in_exif=False) as picture:
        assert np.array_equal(images.load(picture.convert("RGB")).pixels, np.rot90(NOISE, -1))


def test_bytes_with_gaps_are_read() -> None:
    twice = bytes(byte for byte in PNG for _ in range(2))
    assert np.array_equal(images.load(memoryview(twice)[::2]).pixels, NOISE)
    prepared = read_content(memoryview(twice)[::2])
    assert prepared is not None
    assert prepared.data == PNG


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(128) + b"DICM" + bytes(50), "a DICOM file; read it with pydicom"),
        (base64.b64encode(PNG), "a picture as base64 text; decode it first"),
        (b"pictures/street.png", "the path of a file, as bytes; pass it as text"),
        (b"hello world", "text beginning with 'hello world'"),
    ],
)
def test_what_is_no_picture_is_named_with_the_remedy(content: bytes, words: str) -> None:
    with pytest.raises(ImageDecodeError, match=words):
        images.load(content)


def test_floats_that_are_not_numbers_are_told() -> None:
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = np.nan
    with pytest.raises(ImageDecodeError, match=r"some are not numbers \(NaN\); replace them"):
        images.load(values)


def test_a_picture_of_which_nothing_is_left_on_white_is_told() -> None:
    sign = Image.new("RGBA", (8, 6), (255, 255, 255, 0))
    sign.putpixel((3, 3), (255, 255, 255, 255))
    file = io.BytesIO()
    sign.save(file, "PNG")
    for source in (sign, file.getvalue(), np.asarray(sign)):
        (note,) = images.load(source).notes
        assert note.startswith("the picture is entirely white")
    sign.putpixel((3, 3), (0, 0, 0, 255))
    assert images.load(sign).notes == ()
    assert images.load(Image.new("RGB", (8, 6), "white")).notes == ()
