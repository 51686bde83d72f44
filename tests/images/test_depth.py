"""Pictures of more than 8 bits, bands or pages: read right, with a note on what is lost, or refused by name."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from s3seg import images
from s3seg.errors import ImageDecodeError

SCALED = "16 bits per channel were scaled to 8"


def _tiff(
    array: np.ndarray, *, photometric: int, separate: bool = False, compress: bool = False, extra: int | None = None
) -> bytes:
    """Encode ``(H, W, C)`` as a little-endian TIFF of one strip, or one strip for each band."""
    height, width, bands = array.shape
    planes = [array[..., band] for band in range(bands)] if separate else [array]
    strips = [plane.astype(plane.dtype.newbyteorder("<")).tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if compress else strips
    offsets = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    bits, number = array.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags: list[tuple[int, int, list[int]]] = [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [bits] * bands),
        (259, 3, [8 if compress else 1]),
        (262, 3, [photometric]),
        (273, 4, offsets),
        (277, 3, [bands]),
        (278, 3, [height]),
        (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2 if separate else 1]),
        *([(338, 3, [extra] * (bands - 3))] if extra is not None else []),
        (339, 3, [number] * bands),
    ]
    body = b"".join(strips)
    at = 8 + len(body)
    values_at = at + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, kind, numbers in tags:
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            pointer = struct.pack("<I", values_at + len(values))
            values += packed
            packed = pointer
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", at) + body + struct.pack("<H", len(tags)) + entries + bytes(4) + values


def _png16(samples: np.ndarray, colour: int, transparent: tuple[int, ...] = ()) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _values(dtype: str, bands: int) -> np.ndarray:
    numbers = np.random.default_rng(0).random((10, 12, bands))
    return numbers.astype(dtype) if dtype[0] == "f" else (numbers * np.iinfo(dtype).max).astype(dtype)


def _as_8_bit(values: np.ndarray) -> np.ndarray:
    """The rule written out: full range to full range."""
    full = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    return values.astype(np.float64) / full * 255


# Depth


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (6, 4), (4, 2)])
def test_a_16_bit_png_is_scaled_with_a_note(colour: int, bands: int) -> None:
    samples = _values("u2", bands)
    if bands in (2, 4):
        samples[..., -1] = 65535
    loaded = images.load(_png16(samples, colour))
    expected = _as_8_bit(samples)[..., :3] if bands > 2 else np.repeat(_as_8_bit(samples)[..., :1], 3, axis=2)
    assert np.abs(loaded.pixels - expected).max() < 1
    assert loaded.notes == (SCALED,)
    assert loaded.steps[0] == "16 bit scaled to 8 bit"
    assert loaded.mode.endswith(";16")


@pytest.mark.parametrize("source", ["file", "array", "pil"])
def test_grey_of_16_bits_is_scaled_with_a_note_from_every_source(source: str) -> None:
    samples = _values("u2", 1)[..., 0]
    picture = Image.fromarray(samples)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    loaded = images.load({"file": buffer, "array": samples, "pil": picture}[source])
    assert loaded.notes == (SCALED,)
    assert np.abs(loaded.pixels[..., 0] - samples / 257).max() <= 0.5


def test_a_colour_of_a_16_bit_png_that_is_declared_transparent_becomes_white() -> None:
    rgb = images.load(_png16(np.array([[[1000, 2000, 3000], [40000, 40000, 40000]]]), 2, (1000, 2000, 3000)))
    assert rgb.pixels.tolist() == [[[255, 255, 255], [156, 156, 156]]]
    grey = images.load(_png16(np.array([[[1000], [40000]]]), 0, (1000,)))
    assert grey.pixels[0, :, 0].tolist() == [255, 156]
    assert rgb.steps[-1] == grey.steps[-1] == "transparency composited on white"


def test_a_12_bit_scan_in_16_bits_is_reported_as_nearly_black() -> None:
    dark = (_values("u2", 3) // 16).astype(np.uint16)
    for source in (dark, _tiff(dark, photometric=2), _png16(dark, 2)):
        loaded = images.load(source)
        assert loaded.notes[0] == SCALED
        assert loaded.notes[1].startswith(f"the picture is nearly black, its brightest value is {loaded.pixels.max()}")
    assert images.load((dark // 256).astype(np.uint8)).notes == ()


def test_a_grey_tiff_of_12_bits_fills_the_range() -> None:
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in [*tags, (279, 4, 3)])
    packed = b"\xff\xf8\x00" + bytes(5)  # 4095 and 2048
    loaded = images.load(b"II*\0" + struct.pack("<I", 16) + packed + struct.pack("<H", 9) + entries + bytes(4))
    assert loaded.pixels[0, :, 0].tolist() == [255, 128]
    assert loaded.notes == ("12 bits per channel were scaled to 8",)


def test_ppm_of_more_than_8_bits_is_scaled_with_a_note() -> None:
    loaded = images.load(b"P6 1 1 4095\n" + struct.pack(">3H", 4095, 0, 2048))
    assert loaded.pixels.tolist() == [[[255, 0, 128]]]
    assert loaded.notes == ("12 bits per channel were scaled to 8",)


# TIFF


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "zlib"])
@pytest.mark.parametrize("separate", [False, True], ids=["contiguous", "separate"])
@pytest.mark.parametrize(("photometric", "bands"), [(0, 1), (1, 1), (1, 2), (1, 8), (2, 3), (2, 4), (2, 5)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f2", "f4", "f8", "i1"])
def test_a_tiff_is_read_right_or_refused_as_unsupported(
    dtype: str, photometric: int, bands: int, separate: bool, compress: bool
) -> None:
    values = _values(dtype, bands)
    extra = 0 if photometric == 2 and bands > 3 else None
    encoded = _tiff(values, photometric=photometric, separate=separate, compress=compress, extra=extra)
    refused = "a.tif: (Pillow cannot read this kind of TIFF|its integers range .* beyond 16 bits)"
    loaded = None
    with contextlib.suppress(ImageDecodeError):
        loaded = images.load(encoded)
    if loaded is None:
        assert dtype not in ("u1", "u2") or separate or bands > 4 or (photometric, bands) == (1, 2)
        with pytest.raises(ImageDecodeError, match=refused):
            images.load(encoded, name="a.tif")
        return
    expected = _as_8_bit(values)[..., : 3 if photometric == 2 else 1]
    assert np.abs(loaded.pixels - (255 - expected if photometric == 0 else expected)).max() <= 1
    extra_bands = bands - (3 if photometric == 2 else 1)
    assert any("extra band" in note for note in loaded.notes) == (extra_bands > 0)
    assert any("scaled to 8" in note for note in loaded.notes) == (dtype != "u1")


@pytest.mark.parametrize(
    ("dtype", "photometric", "bands", "separate", "description"),
    [
        ("f4", 2, 3, False, "32-bit float RGB"),
        ("u2", 1, 8, True, "8 bands of 16 bits, stored separately"),
        ("u1", 1, 5, False, "5 bands of 8 bits"),
        ("f8", 1, 1, False, "64-bit float grey"),
        ("u2", 2, 3, True, "16-bit RGB, stored separately"),
        ("i1", 1, 1, False, "8-bit signed grey"),
    ],
)
def test_an_unsupported_tiff_is_described(
    dtype: str, photometric: int, bands: int, separate: bool, description: str
) -> None:
    encoded = _tiff(_values(dtype, bands), photometric=photometric, separate=separate)
    with pytest.raises(ImageDecodeError) as caught:
        images.load(encoded, name="a.tif")
    assert str(caught.value) == (
        f"a.tif: Pillow cannot read this kind of TIFF ({description}); convert it to 8-bit RGB, as PNG, JPEG or TIFF"
    )


def test_a_cut_tiff_of_an_unsupported_kind_is_still_called_damaged() -> None:
    encoded = _tiff(_values("f4", 3), photometric=2)
    with pytest.raises(ImageDecodeError, match=r"damaged or cut off|truncated"):
        images.load(encoded[: encoded.index(struct.pack("<HHI", 273, 4, 1))])


def test_the_preview_of_a_cameras_raw_picture_is_not_taken_for_the_picture() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TIFF", tiffinfo={254: 1, 330: 8})
    with pytest.raises(ImageDecodeError, match="a camera's raw picture, of which only the preview"):
        images.load(buffer)


@pytest.mark.parametrize(
    "head", [b"II*\0\x10\0\0\0CR\x02\0", b"FUJIFILMCCD-RAW ", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0"]
)
def test_cameras_raw_pictures_are_named(head: bytes) -> None:
    with pytest.raises(ImageDecodeError, match="a camera's raw picture"):
        images.load(head + bytes(1000))


# Other formats that Pillow recognises and cannot read


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"BM" + bytes(12) + struct.pack("<IIiHHIIiiII", 40, 5, 5, 1, 7, 0, 0, 0, 0, 0, 0) + bytes(99), "kind of BMP"),
        (b"DDS " + struct.pack("<I", 124) + bytes(200), "kind of DDS"),
        (
            b"\xff\xd8\xff\xc0\x00\x11\x0c\x00\x08\x00\x08\x03" + b"\x01\x11\x00" * 3 + bytes(99),
            "kind of JPEG .*12-bit",
        ),
    ],
)
def test_an_unsupported_kind_of_another_format_is_not_called_damaged(encoded: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message) as caught:
        images.load(encoded)
    assert "damaged" not in str(caught.value)


# Pages and frames


def _several(format_name: str, count: int = 3) -> bytes:
    pages = [Image.new("RGB", (6, 4), (255 - 60 * page, 0, 60 * page)) for page in range(count)]
    buffer = io.BytesIO()
    pages[0].save(buffer, format_name, save_all=True, append_images=pages[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_name", "word"), [("TIFF", "page"), ("GIF", "frame"), ("WEBP", "frame"), ("PNG", "frame")]
)
def test_pages_and_frames_that_are_not_read_are_counted_in_a_note(format_name: str, word: str) -> None:
    assert images.load(_several(format_name)).notes == (f"only {word} 1 of 3 was read",)
    assert images.load(_several(format_name, 1)).notes == ()


def test_a_frame_that_the_caller_chose_has_no_note() -> None:
    with Image.open(io.BytesIO(_several("TIFF"))) as film:
        film.seek(2)
        loaded = images.load(film)
        assert film.tell() == 2
    assert loaded.pixels[0, 0].tolist() == [135, 0, 120]
    assert loaded.notes == ()


# HEIC

HEIC = b"\x00\x00\x00\x1cftypheic" + bytes(100)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_a_heic_picture_without_pillow_heif_says_what_to_install(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)  # imageio registers it with Pillow, where it is imported
    with pytest.raises(ImageDecodeError, match=r"a HEIC picture, which needs pillow-heif: pip install 's3seg\[heic\]'"):
        images.load(HEIC.replace(b"heic", brand))


def test_a_heic_picture_is_opened_by_pillow_heif_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def opener(stream: io.BytesIO, filename: str) -> Image.Image:
        asked.append(stream.read())
        return Image.new("RGB", (6, 4), (1, 2, 3))

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(HeifImageFile=opener))
    assert images.load(HEIC).pixels[0, 0].tolist() == [1, 2, 3]
    assert asked == [HEIC]


def test_a_real_heic_picture_is_read_upright() -> None:
    import pillow_heif

    picture = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=-1, exif=exif.tobytes())
    loaded = images.load(buffer)
    assert (loaded.format, loaded.size, loaded.notes) == ("HEIF", (64, 48), ())
    assert np.abs(loaded.pixels.astype(int) - np.rot90(np.asarray(picture), -1)).max() <= 4
    with pytest.raises(ImageDecodeError, match="truncated"):
        images.load(buffer.getvalue()[:-300])


def test_an_empty_file_of_any_suffix_is_called_empty(tmp_path: Path) -> None:
    for suffix in ("png", "heic", "tif"):
        path = tmp_path / f"a.{suffix}"
        path.touch()
        with pytest.raises(ImageDecodeError, match="the file is empty"):
            images.load(path)
