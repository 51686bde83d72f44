import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s3seg.edge.uploads import inspect
from s3seg.errors import FileTooLargeError, ImageDecodeError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from tests.helpers.attacks import NOT_PICTURES, bomb, polyglots
from tests.helpers.pictures import encoded

PIXELS = 10_000


@pytest.mark.parametrize(
    ("image_format", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_the_type_comes_from_the_bytes(image_format, content_type):
    picture = inspect(encoded(image_format, (8, 6)), max_pixels=PIXELS)
    assert (picture.content_type, picture.width, picture.height) == (content_type, 8, 6)


def test_a_rotated_jpeg_has_the_size_after_its_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = inspect(encoded("JPEG", (8, 6), exif=exif), max_pixels=PIXELS)
    assert (picture.width, picture.height) == (6, 8)


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused_before_a_decoder_sees_them(image_format, monkeypatch):
    data = encoded(image_format)
    monkeypatch.setattr("s3seg.images.load", None)  # so that calling it would be a TypeError
    with pytest.raises(ImageDecodeError, match="PNG, JPEG or WebP"):
        inspect(data, max_pixels=PIXELS)


@pytest.mark.parametrize("data", NOT_PICTURES.values(), ids=NOT_PICTURES)
def test_a_file_that_is_not_a_picture_is_refused(data):
    with pytest.raises(ImageDecodeError):
        inspect(data, max_pixels=PIXELS)


@pytest.mark.parametrize("kind", polyglots())
def test_a_picture_that_is_something_else_too_is_stored_as_the_picture(kind):
    assert inspect(polyglots()[kind], max_pixels=PIXELS).content_type == f"image/{kind.split()[-1]}"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(image_format, share):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, format=image_format)
    data = buffer.getvalue()
    with pytest.raises(ImageDecodeError):
        inspect(data[: int(len(data) * share)], max_pixels=PIXELS)


@pytest.mark.parametrize("size", [(100_000, 100_000), (1 << 30, 1), (101, 100)])
def test_a_decompression_bomb_is_refused_by_its_header(size):
    with pytest.raises(ImageDecodeError, match="too large"):
        inspect(bomb(*size), max_pixels=PIXELS)


def test_ten_megabytes_are_the_limit_to_the_byte():
    png = encoded()
    padding = MAX_UPLOAD_BYTES - len(png)  # behind IEND, where a PNG may have what it likes
    assert inspect(png + bytes(padding), max_pixels=PIXELS).content_type == "image/png"
    with pytest.raises(FileTooLargeError):
        inspect(png + bytes(padding + 1), max_pixels=PIXELS)


@given(
    data=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]),
)
def test_any_bytes_are_a_picture_or_an_image_error(data, head):
    with pytest.raises(ImageDecodeError):
        inspect(head + data, max_pixels=PIXELS)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), image_format=st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_a_damaged_picture_is_a_picture_or_an_image_error(position, byte, image_format):
    data = bytearray(encoded(image_format))
    data[position % len(data)] = byte
    try:
        picture = inspect(bytes(data), max_pixels=PIXELS)
    except ImageDecodeError:
        return
    assert picture.width * picture.height <= PIXELS
