"""Images are sent as they are stored where the service accepts their format, and re-encoded to fit otherwise."""

import base64
import io
import logging
import os
import tempfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from starlette.datastructures import UploadFile

from s3seg import errors, images
from s3seg.client._images import prepare
from tests.helpers.pictures import encoded

LIMIT = 200_000
FORMATS = pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])


class PathLike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


class BytesPathLike(PathLike):
    def __fspath__(self):
        return os.fsencode(self.path)


def in_zip(data):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("a/photo.bin", data)
    return zipfile.Path(archive, "a/photo.bin")


def at(position, data):
    stream = io.BytesIO(data)
    stream.seek(position)
    return stream


@FORMATS
def test_an_accepted_format_is_sent_as_it_is_from_any_source(tmp_path, image_format):
    data = encoded(image_format)
    path = tmp_path / "photo.bin"
    path.write_bytes(data)
    (entry,) = os.scandir(tmp_path)
    url = f"data:;base64,{base64.b64encode(data).decode()}"
    for source in (
        path,
        str(path),
        PathLike(path),
        BytesPathLike(path),
        entry,
        data,
        bytearray(data),
        memoryview(data),
        url,
        io.BytesIO(data),
        at(len(data), data),
        at(7, b"headers" + data),
        UploadFile(io.BytesIO(data), filename="photo.bin"),
        UploadFile(at(len(data), data), filename="photo.bin"),
        in_zip(data),
    ):
        prepared = prepare(source)
        assert prepared.data == data, source
        assert prepared.content_type == f"image/{image_format.lower()}"
        assert np.array_equal(prepared.pixels, images.load(data).pixels)
    with path.open("rb") as file:
        assert prepare(file).data == data
        assert prepare(file).data == data  # now at its end
    with tempfile.SpooledTemporaryFile() as file:
        file.write(data)
        assert prepare(file).data == data


def test_a_jpeg_with_a_second_picture_is_sent_as_it_is():
    buffer = io.BytesIO()
    one, other = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    one.save(buffer, "MPO", save_all=True, append_images=[other])
    prepared = prepare(io.BytesIO(buffer.getvalue()))
    assert prepared.data == buffer.getvalue()
    assert prepared.content_type == "image/jpeg"


def test_a_source_has_the_same_name_as_on_this_machine(tmp_path):
    data = encoded("JPEG")
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    (entry,) = os.scandir(tmp_path)
    with path.open("rb") as file:
        for source in (path, str(path), PathLike(path), entry, file):
            assert prepare(source).source == images.load(source).source == str(path)
    for source in (data, io.BytesIO(data), images.load(data).pixels, Image.open(io.BytesIO(data))):
        assert prepare(source).source is images.load(source).source is None


@pytest.fixture
def noise():
    """Too large as a PNG, small enough as a JPEG."""
    random = np.random.default_rng(0)
    smooth = np.linspace(0, 200, 500)[:, None, None] + random.integers(0, 24, (500, 400, 3))
    return smooth.astype(np.uint8)


def test_what_is_too_large_as_png_is_sent_as_jpeg_and_told(noise, caplog):
    with caplog.at_level(logging.WARNING, "s3seg.client"):
        prepared = prepare(noise, max_bytes=LIMIT)
    assert prepared.content_type == "image/jpeg"
    assert len(prepared.data) <= LIMIT
    sent = images.load(prepared.data).pixels.astype(int)
    assert np.abs(sent - noise).mean() < 4
    assert np.array_equal(prepared.pixels, noise)
    (record,) = caplog.records
    assert "MB as PNG" in record.getMessage()
    assert "sent as JPEG of quality" in record.getMessage()


def test_what_fits_as_png_is_sent_without_loss_and_without_a_word(caplog):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    prepared = prepare(pixels)
    assert np.array_equal(images.load(prepared.data).pixels, pixels)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("image_format", "options"), [("PNG", {"compress_level": 1}), ("JPEG", {"quality": 100}), ("WEBP", {"lossless": 1})]
)
def test_an_accepted_format_that_is_too_large_is_sent_as_jpeg_and_told(tmp_path, noise, caplog, image_format, options):
    path = tmp_path / f"large.{image_format.lower()}"
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    Image.fromarray(noise).save(path, image_format, exif=exif, **options)
    with caplog.at_level(logging.WARNING, "s3seg.client"):
        prepared = prepare(path, max_bytes=100_000)
    assert (prepared.content_type, prepared.source) == ("image/jpeg", str(path))
    assert len(prepared.data) <= 100_000 < path.stat().st_size
    sent = images.load(prepared.data).pixels.astype(int)
    assert np.abs(sent - images.load(path).pixels).mean() < 6
    assert sent.shape == (400, 500, 3)
    (note,) = prepared.notes
    assert note.startswith("it was sent as JPEG of quality ")
    assert str(path) in caplog.text


def test_what_reading_lost_is_noted():
    pages = [Image.new("RGB", (8, 8)) for _ in range(2)]
    tiff = io.BytesIO()
    pages[0].save(tiff, "TIFF", save_all=True, append_images=pages[1:])
    assert prepare(tiff.getvalue()).notes == images.load(tiff.getvalue()).notes == ("only page 1 of 2 was read",)


def test_what_does_not_fit_at_any_quality_is_refused(noise):
    with pytest.raises(errors.FileTooLargeError, match="as JPEG it is larger too"):
        prepare(noise, max_bytes=1000)


def test_an_asynchronous_file_is_refused_with_the_remedy():
    class AsyncFile:
        async def read(self, size=-1):
            return b""

    with pytest.raises(errors.ImageDecodeError, match=r"await file\.read"):
        prepare(AsyncFile())


@pytest.mark.parametrize("source", [object(), 5, None, [], {}])
def test_what_is_no_source_of_a_picture_is_refused(source):
    with pytest.raises(errors.ImageDecodeError):
        prepare(source)
