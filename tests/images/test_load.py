"""Encoded pictures of every format, and files that are not pictures."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, ImageOps, features

from s3seg import images
from s3seg.errors import ImageDecodeError
from tests.helpers.loopback import reply, serving

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


def _encode(picture: Image.Image, format_name: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def _plain(mode: str, colour) -> Image.Image:
    return Image.new(mode, (6, 4), colour)


NEEDS_AVIF = pytest.mark.skipif("avif" not in features.modules, reason="Pillow reads AVIF from 11.3 on")
PNG = _encode(Image.fromarray(NOISE))


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# Sources


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(PNG)
    with path.open("rb") as file, Image.open(path) as picture:
        sources = [
            path,
            str(path),
            PNG,
            bytearray(PNG),
            memoryview(PNG),
            io.BytesIO(PNG),
            file,
            picture,
            NOISE,
        ]
        for source in sources:
            loaded = images.load(source)
            assert np.array_equal(loaded.pixels, NOISE)
            assert loaded.pixels.flags.c_contiguous
            assert loaded.pixels.flags.writeable
            assert loaded.size == (24, 32)
            assert loaded.steps == ()


def test_the_source_is_named_in_results(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(PNG)
    assert images.load(path).source == str(path)
    assert images.load(PNG, name="upload.png").source == "upload.png"


def test_a_loaded_image_is_loaded_already() -> None:
    loaded = images.load(PNG)
    assert images.load(loaded) is loaded


def test_a_stream_is_read_from_where_it_stands_and_not_beyond_the_limit() -> None:
    stream = io.BytesIO(b"header" + PNG)
    stream.seek(6)
    assert np.array_equal(images.load(stream).pixels, NOISE)
    with pytest.raises(ImageDecodeError, match="max_bytes"):
        images.load(io.BytesIO(PNG), max_bytes=len(PNG) - 1)
    with pytest.raises(ImageDecodeError, match="rb"):
        images.load(io.StringIO("text"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_pipe_that_cannot_seek_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(PNG,))
    writer.start()
    assert np.array_equal(images.load(pipe).pixels, NOISE)
    writer.join()


def test_the_users_pil_image_stays_as_it_is() -> None:
    picture = Image.fromarray(NOISE)
    picture.getexif()[0x0112] = 3
    assert np.array_equal(images.load(picture).pixels, NOISE[::-1, ::-1])
    assert np.array_equal(np.asarray(picture), NOISE)


# Conversions


@pytest.mark.parametrize(
    ("picture", "format_name", "expected"),
    [
        (_plain("1", 1), "PNG", (255, 255, 255)),
        (_plain("L", 77), "PNG", (77, 77, 77)),
        (_plain("LA", (77, 255)), "PNG", (77, 77, 77)),
        (_plain("LA", (77, 0)), "PNG", (255, 255, 255)),
        (_plain("RGB", (10, 20, 30)), "PNG", (10, 20, 30)),
        (_plain("RGBA", (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (_plain("RGBA", (10, 20, 30, 0)), "PNG", (255, 255, 255)),
        (_plain("RGBA", (0, 0, 0, 51)), "PNG", (204, 204, 204)),
        (_plain("RGBA", (0, 0, 0, 51)), "WEBP", (204, 204, 204)),
        (_plain("I;16", 257 * 77), "PNG", (77, 77, 77)),
        (_plain("I;16", 65535), "TIFF", (255, 255, 255)),
        (_plain("I", 257 * 77), "TIFF", (77, 77, 77)),
        (_plain("F", 0.2), "TIFF", (51, 51, 51)),
        (_plain("CMYK", (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (_plain("RGB", (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", (10, 20, 30)),
        (_plain("RGB", (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE), "GIF", (10, 20, 30)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_becomes_rgb(picture: Image.Image, format_name: str, expected: tuple[int, int, int]) -> None:
    lossless = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    loaded = images.load(_encode(picture, format_name, **lossless))
    assert loaded.pixels.shape == (4, 6, 3)
    assert loaded.pixels.dtype == np.uint8
    assert np.unique(loaded.pixels.reshape(-1, 3), axis=0).tolist() == [list(expected)]


def test_an_opaque_picture_loses_its_alpha_without_a_step() -> None:
    assert images.load(_encode(_plain("RGBA", (10, 20, 30, 255)))).steps == ()
    assert images.load(_encode(_plain("RGBA", (10, 20, 30, 9)))).steps == ("transparency composited on white",)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "PA", "La", "RGBa", "RGBX"])
def test_modes_that_only_pil_images_have_become_rgb(mode: str) -> None:
    assert images.load(Image.new(mode, (6, 4))).pixels.shape == (4, 6, 3)


def test_transparent_palette_entries_become_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((1, 0), 1)
    for transparency in (1, b"\xff\x00"):
        loaded = images.load(_encode(picture, transparency=transparency))
        assert loaded.pixels.tolist() == [[[10, 20, 30], [255, 255, 255]]]
        assert "transparency composited on white" in loaded.steps


def test_a_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    loaded = images.load(_encode(_plain("RGB", (1, 2, 3)), transparency=(1, 2, 3)))
    assert (loaded.pixels == 255).all()


def test_a_cmyk_jpeg_of_adobe_is_not_inverted() -> None:
    encoded = _encode(_plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in encoded
    assert np.abs(images.load(encoded).pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_sixteen_bits_are_scaled_and_not_cut() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    pixels = images.load(_encode(Image.fromarray(values))).pixels[0, :, 0]
    assert pixels.tolist() == [0, 0, 1, 1, 128, 255]


def test_integers_beyond_sixteen_bits_are_refused() -> None:
    with pytest.raises(ImageDecodeError, match="range from 70000 to 70000"):
        images.load(Image.new("I", (2, 2), 70000))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation: int, format_name: str) -> None:
    picture = Image.fromarray(NOISE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = _encode(picture, format_name, exif=exif, **({"lossless": True} if format_name == "WEBP" else {}))
    loaded = images.load(encoded)
    with Image.open(io.BytesIO(encoded)) as stored:
        upright = np.array(ImageOps.exif_transpose(stored).convert("RGB"))
    assert np.array_equal(loaded.pixels, upright)
    assert loaded.size == ((24, 32) if orientation < 5 else (32, 24))
    assert loaded.steps == (() if orientation == 1 else (f"EXIF orientation {orientation} applied",))


def test_broken_exif_does_not_lose_a_good_picture() -> None:
    encoded = _encode(Image.fromarray(NOISE), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(images.load(encoded).pixels, NOISE)


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken_and_told(format_name: str) -> None:
    red, blue = (_plain("RGB", colour) for colour in ((255, 0, 0), (0, 0, 255)))
    encoded = _encode(red, format_name, save_all=True, append_images=[blue])
    loaded = images.load(encoded)
    assert np.abs(loaded.pixels.astype(int) - [255, 0, 0]).max() <= 3
    assert loaded.steps[0] == "first frame of several taken"


# Errors


def test_a_huge_header_is_refused_before_anything_is_decoded() -> None:
    bomb = _png_header(60_000, 60_000)
    tracemalloc.start()
    with pytest.raises(ImageDecodeError, match=r"bomb.png: too large: 60000 x 60000 is 3600.0 megapixels.*max_pixels="):
        images.load(bomb, name="bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_the_pixel_limit_is_the_callers_and_not_pillows() -> None:
    limits = Image.MAX_IMAGE_PIXELS
    assert images.load(PNG, max_pixels=24 * 32).size == (24, 32)
    for source in (PNG, NOISE, Image.fromarray(NOISE)):
        with pytest.raises(ImageDecodeError, match=r"make it smaller$"):
            images.load(source, max_pixels=24 * 32 - 1)
    # Between Pillow's warning (89 megapixels) and its error (179) only our limit speaks; warnings are errors.
    with pytest.raises(ImageDecodeError, match="truncated"):
        images.load(_png_header(10_000, 10_000))
    with pytest.raises(ImageDecodeError, match="truncated"):
        images.load(_png_header(14_000, 14_000), max_pixels=10**9)
    assert limits == Image.MAX_IMAGE_PIXELS


@settings(deadline=None, max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize(
    ("format_name", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG2000", {}),
        pytest.param("AVIF", {}, marks=NEEDS_AVIF),
        ("PPM", {}),
    ],
    ids=str,
)
def test_a_cut_file_is_whole_pixels_or_an_error_never_half_grey(
    data: st.DataObject, format_name: str, options: dict
) -> None:
    encoded = _encode(Image.fromarray(NOISE), format_name, **options)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    try:
        loaded = images.load(cut)
    except ImageDecodeError:
        return
    assert np.array_equal(loaded.pixels, images.load(encoded).pixels)


def test_a_jpeg_2000_cut_behind_its_header_is_an_error() -> None:
    encoded = _encode(Image.fromarray(NOISE), "JPEG2000")
    for length in range(150, 300):
        with pytest.raises(ImageDecodeError):
            images.load(encoded[:length])


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_a_cut_file_is_an_error_also_if_pillow_is_told_to_accept_truncated_files(
    format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = _encode(Image.fromarray(NOISE), format_name)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert images.load(encoded).size == (24, 32)
    with pytest.raises(ImageDecodeError, match="truncated"):
        images.load(encoded[: len(encoded) * 2 // 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>sign in</body></html>", "an HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "a video"),
        (b"\x1aE\xdf\xa3\x01\x00\x00", "a WebM or Matroska video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "an AVI video"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive"),
        (b'{"error": "not found"}', "a JSON file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"hello there, this is text", "text beginning with 'hello"),
        (bytes(1000), "a file of zeros"),
        (b"\x89\x00\x01\x02\x03\x04\x05\x06", "beginning with 89 00 01"),
        (PNG[:20], "the file is truncated"),
        (_png_header(0, 5), "begins like a PNG file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_an_image_is_named_for_what_it_looks_like(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(path)
    assert str(caught.value).startswith(str(path))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", PNG[:33], b"\xff\xd8\xff\xe0", b"II*\0", b"GIF89a", b"BM"]))
def test_no_bytes_whatever_raise_anything_else(content: bytes, head: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, on corrupt metadata
        with contextlib.suppress(ImageDecodeError):
            images.load(head + content)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "missing.png: there is no such file"),
        (".", "a folder"),
        ("s3://bucket/cat.png", "s3:// addresses are not supported"),
        ("nul\0byte.png", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
        (42, "cannot load a picture from an int"),
        (None, "cannot load a picture from a NoneType"),
        ([[1, 2], [3, 4]], "cannot load a picture from a list"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why(source, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(source)
    assert len(str(caught.value)) < 1000


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    with pytest.raises(ImageDecodeError, match="no permission"):
        images.load(path)


def test_many_threads_with_different_limits_do_not_disturb_each_other() -> None:
    outcomes: list[bool] = []

    def work(limit: int) -> None:
        for _ in range(20):
            try:
                images.load(PNG, max_pixels=limit)
                outcomes.append(limit >= 768)
            except ImageDecodeError:
                outcomes.append(limit < 768)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (767, 768, 100, 10**9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 80


# URLs


def _routes(request: BaseHTTPRequestHandler) -> None:
    path = request.path.partition("?")[0]
    if path == "/cat":
        reply(request, 200, PNG, {"Content-Type": "text/html"})
    elif path == "/hop":
        reply(request, 302, b"", {"Location": "/cat"})
    elif path == "/loop":
        reply(request, 302, b"", {"Location": "/loop"})
    elif path == "/page":
        reply(request, 200, b"<html>cat</html>", {"Content-Type": "image/png"})
    elif path == "/cut":
        reply(request, 200, PNG[:100], {"Content-Length": str(len(PNG))})
    elif path == "/endless":
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(bytes(65536))
    elif path == "/slow":
        threading.Event().wait(1.0)
    else:
        reply(request, 404)


def test_a_url_is_read_and_its_bytes_decide_what_it_is() -> None:
    with serving(_routes) as server:
        for path in ("/cat", "/hop", "/cat?size=2"):
            loaded = images.load(server + path)
            assert np.array_equal(loaded.pixels, NOISE)
            assert loaded.source == server + path


def test_a_password_in_a_url_is_not_repeated() -> None:
    with serving(_routes) as server:
        url = server.replace("http://", "http://user:secret@") + "/missing"
        with pytest.raises(ImageDecodeError, match="404") as caught:
            images.load(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", "the server answered 404"),
        ("/loop", "more than 5 redirects"),
        ("/page", "an HTML page"),
        ("/cut", "the download failed"),
        ("/endless", "more than the 300000 bytes"),
        ("/slow", "did not answer within 0.2 seconds"),
    ],
)
def test_a_url_that_gives_no_picture_says_why(path: str, message: str) -> None:
    with serving(_routes) as server, pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(server + path, max_bytes=300_000, timeout=0.2 if path == "/slow" else 20)
    assert server + path in str(caught.value)


def test_an_announced_length_beyond_the_limit_is_refused_at_once() -> None:
    with serving(_routes) as server, pytest.raises(ImageDecodeError, match="max_bytes"):
        images.load(server + "/cat", max_bytes=10)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "https://exa mple/x", "http://127.0.0.1:1/x"])
def test_a_url_that_leads_nowhere_is_an_image_error(url: str) -> None:
    with pytest.raises(ImageDecodeError):
        images.load(url, timeout=2)


class TestReduced:
    """Large JPEGs for a small network."""

    @staticmethod
    def jpeg(size, **options):
        gradient = np.add.outer(np.arange(size[1]) / size[1], np.arange(size[0]) / size[0]) / 2
        pixels = np.stack([gradient * 255, 255 - gradient * 255, gradient * 128], axis=-1).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=95, **options)
        return buffer.getvalue()

    @pytest.mark.parametrize(
        ("side", "expected"),
        [(1200, (1200, 1600)), (601, (1200, 1600)), (600, (600, 800)), (200, (300, 400)), (9, (150, 200))],
    )
    def test_a_jpeg_is_read_no_smaller_than_asked_for_and_tells_its_true_size(self, side, expected):
        loaded = images.load(self.jpeg((1600, 1200)), reduce_to=side)
        assert loaded.size == expected
        assert loaded.full_size == (1200, 1600)

    def test_the_picture_is_the_same_but_smaller(self):
        content = self.jpeg((1600, 1200))
        full, small = images.load(content).pixels, images.load(content, reduce_to=300).pixels
        averaged = full.reshape(300, 4, 400, 4, 3).mean(axis=(1, 3))
        assert np.abs(averaged - small).mean() < 1.5

    def test_a_turned_jpeg_tells_its_true_size_upright(self):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        loaded = images.load(self.jpeg((1600, 1200), exif=exif.tobytes()), reduce_to=300)
        assert loaded.size == (400, 300)
        assert loaded.full_size == (1600, 1200)

    def test_other_formats_and_small_pictures_are_read_as_they_are(self):
        buffer = io.BytesIO()
        Image.new("RGB", (1600, 1200)).save(buffer, format="PNG")
        for content in (buffer.getvalue(), self.jpeg((500, 400))):
            loaded = images.load(content, reduce_to=300)
            assert loaded.full_size == loaded.size
            assert loaded.reduced_from is None

    def test_the_limit_of_pixels_counts_those_of_the_file(self):
        with pytest.raises(ImageDecodeError, match="too large"):
            images.load(self.jpeg((1600, 1200)), reduce_to=100, max_pixels=1_000_000)

    def test_a_cut_jpeg_is_refused_reduced_too(self):
        with pytest.raises(ImageDecodeError, match="truncated"):
            images.load(self.jpeg((1600, 1200))[:-2000], reduce_to=100)


def test_the_bytes_of_a_path_and_a_url_can_be_read_without_decoding_them(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not decoded")
    assert images.read_bytes(tmp_path / "a.png") == b"not decoded"
    with serving(lambda request: reply(request, 200, b"from a server")) as url:
        assert images.read_bytes(f"{url}/a.png") == b"from a server"
    with pytest.raises(ImageDecodeError, match="more than the 5 bytes"):
        images.read_bytes(tmp_path / "a.png", max_bytes=5)


@pytest.mark.parametrize("name", ["none.png", ".", "a.png/b"])
def test_bytes_that_cannot_be_read_give_the_error_of_loading_the_picture(tmp_path, name):
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageDecodeError) as loading:
        images.load(tmp_path / name)
    with pytest.raises(ImageDecodeError) as reading:
        images.read_bytes(tmp_path / name)
    assert str(reading.value) == str(loading.value)


def test_an_error_of_an_object_that_reads_itself_is_kept():
    class Missing:
        def read_bytes(self):
            raise ImageDecodeError("s3://bucket/a.png: there is no such object")

    with pytest.raises(ImageDecodeError) as error:
        images.load(Missing())
    assert str(error.value) == "s3://bucket/a.png: there is no such object"
