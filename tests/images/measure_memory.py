"""Measure the peak of memory while pictures are loaded (Linux): ``python -m tests.images.measure_memory [FILE ...]``.

Without files it makes pictures of 16 megapixels of noise (JPEG 2000: 4), one of each format and mode.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

_MAXIMUM = """
import sys
from s3seg import images

def kilobytes(field):  # not getrusage: its maximum is inherited from the process that started this one
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

images.load(sys.argv[1])  # a small picture of the same format: modules and plugins are loaded
before = kilobytes("VmRSS:")
picture = images.load(sys.argv[2])
print((kilobytes("VmHWM:") - before) * 1024 / picture.width / picture.height)
"""


def bytes_per_pixel(small: Path, large: Path) -> float:
    """Return the growth of the peak of resident memory while ``large`` is loaded, per pixel."""
    done = subprocess.run([sys.executable, "-c", _MAXIMUM, small, large], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _pictures(folder: Path, side: int) -> dict[str, Path]:
    import tifffile

    noise = np.random.default_rng(0).integers(0, 256, (side, side, 4), np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6
    ImageFile.MAXBLOCK = 2**28  # else a progressive JPEG of noise cannot be written
    paths = {}
    for name, picture, options in (
        ("grey.png", grey, {"compress_level": 1}),
        ("palette.png", rgb.convert("P"), {"compress_level": 1}),
        ("grey16.png", Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {"compress_level": 1}),
        ("rgb.png", rgb, {"compress_level": 1}),
        ("rgba.png", rgba, {"compress_level": 1}),
        ("rgb.jpg", rgb, {"quality": 90, "subsampling": 0}),
        ("progressive.jpg", rgb, {"quality": 90, "subsampling": 0, "progressive": True}),
        ("turned.jpg", rgb, {"quality": 90, "exif": turned}),
        ("cmyk.jpg", rgb.convert("CMYK"), {"quality": 90}),
        ("rgb.webp", rgb, {"quality": 50, "method": 0}),
        ("rgba.webp", rgba, {"quality": 50, "method": 0}),
        ("rgb.avif", rgb, {"speed": 10}),
        ("rgba.avif", rgba, {"speed": 10}),
        ("rgb.jp2", rgb.resize((side // 2, side // 2)), {}),
        ("rgba.jp2", rgba.resize((side // 2, side // 2)), {}),
        ("grey.tif", grey, {}),
        ("rgb.tif", rgb, {}),
        ("turned.tif", rgb, {"exif": turned}),
        ("float.tif", Image.fromarray(noise[..., 0].astype(np.float32) / 255), {}),
    ):
        paths[name] = folder / name
        picture.save(paths[name], **options)
    for name, options in (("rgba16.tif", {}), ("one_strip.tif", {"compression": "zlib", "rowsperstrip": side})):
        paths[name] = folder / name
        tifffile.imwrite(
            paths[name], noise.astype(np.uint16) * 257, photometric="rgb", extrasamples=["unassalpha"], **options
        )
    return paths


def main(files: list[str]) -> None:
    """Print the peak in bytes per pixel for each file."""
    with tempfile.TemporaryDirectory() as temporary:
        small_folder, large_folder = Path(temporary, "small"), Path(temporary, "large")
        small_folder.mkdir()
        large_folder.mkdir()
        small = _pictures(small_folder, 64)
        large = {file: Path(file) for file in files} or _pictures(large_folder, 4000)
        for name, path in large.items():
            print(f"{name:20} {bytes_per_pixel(small.get(name, path), path):5.1f} bytes per pixel")


if __name__ == "__main__":
    main(sys.argv[1:])
