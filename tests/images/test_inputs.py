"""Paths, arrays, PIL pictures and data URLs as sources, the name that a picture gets, and what is said about others."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.datastructures import UploadFile

from s3seg import images
from s3seg.errors import ImageDecodeError
from s3seg.images.content import Content, read_content
from tests.images.noise import NOISE, PNG, named_buffer


class PathLike:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


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
        named_buffer(3),  # a file descriptor, as of os.fdopen
        named_buffer(None),
        named_buffer(""),
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


def test_a_pair_of_a_name_and_a_file_has_the_bytes_of_the_file_and_the_name() -> None:
    assert read_content(("cat", PNG)) == Content(PNG, "cat")
    assert read_content(("cat", io.BytesIO(PNG))) == Content(PNG, "cat")
    assert read_content(("cat", NOISE)) is None


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
