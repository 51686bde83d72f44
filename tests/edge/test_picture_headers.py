"""Uploads checked by their headers, compared with what Pillow finds by decoding them."""

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s3seg.edge.picture_headers import inspect_header
from s3seg.edge.uploads import Picture, inspect
from s3seg.errors import FileTooLargeError, ImageDecodeError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES
from tests.helpers.attacks import NOT_PICTURES, bomb, many_chunks, polyglots, slow_jpeg
from tests.helpers.pictures import encoded

PIXELS = 100_000


def header(data: bytes, *, max_pixels: int = PIXELS) -> Picture:
    """Run the coroutine, which waits for nothing."""
    try:
        inspect_header(data, user_id="user", max_pixels=max_pixels).send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def files() -> dict[str, bytes]:
    """Pictures of every kind that Pillow writes in the three formats."""
    made = {}
    for mode, interlaced in itertools.product(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], [False, True]):
        made[f"png {mode} {interlaced}"] = saved(mode, "PNG", interlace=interlaced)
    for mode, progressive in itertools.product(["L", "RGB", "CMYK"], [False, True]):
        made[f"jpeg {mode} {progressive}"] = saved(mode, "JPEG", progressive=progressive, comment=b"\xff\xd9" * 9)
    for mode, lossless in itertools.product(["RGB", "RGBA"], [False, True]):
        made[f"webp {mode} {lossless}"] = saved(mode, "WEBP", lossless=lossless)
    frames = [Image.new("RGB", (31, 17), (shade, 0, 0)) for shade in (10, 200)]
    made["animated webp"] = saved("RGB", "WEBP", save_all=True, append_images=frames)
    made["animated png"] = saved("RGB", "PNG", save_all=True, append_images=frames)
    made["two pictures in a jpeg"] = saved("RGB", "MPO", save_all=True, append_images=frames)
    for format_, orientation in itertools.product(["PNG", "JPEG", "WEBP"], range(9)):
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "a maker", orientation
        made[f"{format_.lower()} orientation {orientation}"] = saved("RGB", format_, exif=exif)
    return made


def saved(mode: str, image_format: str, **options: object) -> bytes:
    picture = Image.effect_noise((31, 17), 80).convert("RGB")
    buffer = io.BytesIO()
    (Image.new(mode, (31, 17)) if mode == "I;16" else picture.convert(mode)).save(buffer, image_format, **options)
    return buffer.getvalue()


FILES = files()


@pytest.mark.parametrize("kind", FILES)
def test_a_header_says_the_same_as_decoding(kind):
    assert header(FILES[kind]) == inspect(FILES[kind], max_pixels=PIXELS)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_without_its_last_bytes_is_refused(kind):
    data = FILES[kind]
    for kept in {len(data) // 10, len(data) // 2, len(data) - 1} - {0}:
        if kind == "two pictures in a jpeg" and kept > len(data) // 2 - 1:
            continue  # the first of them is complete, and is all that is used
        with pytest.raises(ImageDecodeError):
            header(data[:kept])


@pytest.mark.parametrize("data", NOT_PICTURES.values(), ids=NOT_PICTURES)
def test_a_file_that_is_not_a_picture_is_refused(data):
    with pytest.raises(ImageDecodeError):
        header(data)


@pytest.mark.parametrize("kind", polyglots())
def test_a_picture_that_is_something_else_too_has_the_type_of_the_picture(kind):
    assert header(polyglots()[kind]).content_type == f"image/{kind.split()[-1]}"


@pytest.mark.parametrize("size", [(100_000, 100_000), (1 << 30, 1), (1 << 31, 1), (0, 5), (101, 1000)])
def test_a_picture_with_too_many_pixels_or_none_is_refused(size):
    with pytest.raises(ImageDecodeError, match=r"too large|has no pixels"):
        header(bomb(*size))


def test_ten_megabytes_are_the_limit_to_the_byte():
    png = encoded()
    padding = MAX_UPLOAD_BYTES - len(png)
    assert header(png + bytes(padding)).content_type == "image/png"
    with pytest.raises(FileTooLargeError):
        header(png + bytes(padding + 1))


def test_a_file_of_very_many_parts_is_refused():
    with pytest.raises(ImageDecodeError, match="more than 20000 chunks"):
        header(many_chunks())
    with pytest.raises(ImageDecodeError, match="more than 20000 segments"):
        header(b"\xff\xd8" + b"\xff\xfe\0\2" * 30_000 + encoded("JPEG")[2:])


def test_pixels_are_not_decoded_so_what_takes_minutes_to_decode_is_accepted():
    data = slow_jpeg(scans=3)
    assert header(data, max_pixels=50_000_000).width == 7000


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xCF])
def test_a_lossless_or_hierarchical_jpeg_is_refused_with_a_remedy(marker):
    with pytest.raises(ImageDecodeError, match="save it as an ordinary JPEG"):
        header(encoded("JPEG").replace(b"\xff\xc0", bytes([0xFF, marker])))


@given(
    data=st.binary(max_size=200),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"RIFF\x50\0\0\0WEBPVP8X"]),
)
def test_any_bytes_are_a_picture_or_an_image_error(data, head):
    try:
        assert 0 < header(head + data).width <= PIXELS
    except ImageDecodeError:
        return


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), kind=st.sampled_from(sorted(FILES)))
def test_a_damaged_picture_is_a_picture_or_an_image_error(position, byte, kind):
    data = bytearray(FILES[kind])
    data[position % len(data)] = byte
    try:
        found = header(bytes(data))
    except ImageDecodeError:
        return
    assert 0 < found.width * found.height <= PIXELS
