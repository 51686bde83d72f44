"""Prepares images for upload. Functions import numpy and Pillow, so that polling needs neither."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3seg.errors import FileTooLargeError
from s3seg.tasks.limits import MAX_UPLOAD_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PilImage

    from s3seg.images import ImageSource, LoadedImage

_CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp"}
_JPEG_QUALITIES = (95, 90, 85, 80, 70)
_log = logging.getLogger("s3seg.client")


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """An image to upload.

    Attributes:
        data: The bytes of a PNG, JPEG or WebP file.
        content_type: The content type of ``data``.
        source: Path or URL of the image; None if it has none.
        pixels: ``(H, W, 3)`` uint8 RGB, decoded on this machine.
    """

    data: bytes
    content_type: str
    source: str | None
    pixels: npt.NDArray[np.uint8]


def prepare(source: ImageSource, *, max_bytes: int = MAX_UPLOAD_BYTES) -> EncodedImage:
    """Read an image for upload.

    PNG, JPEG and WebP files are kept as they are, wherever they come from (a path, a URL, bytes, a file object). Other
    images are converted to PNG; if that is too large, to JPEG, with the highest quality that fits. The latter loses
    detail, which is logged as a warning.

    Args:
        source: Any source that `s3seg.images.load` accepts.
        max_bytes: Largest file to upload.

    Raises:
        ImageDecodeError: The image cannot be read.
        FileTooLargeError: The file to upload is larger than ``max_bytes``.
    """
    from s3seg import images
    from s3seg.images.content import read_content

    content = read_content(source)
    loaded = images.load(source) if content is None else images.load(content.data, name=content.name)
    content_type = _CONTENT_TYPES.get(loaded.format or "")
    if content is None or content_type is None:
        data, content_type = _encode(loaded, max_bytes)
    elif len(content.data) > max_bytes:
        raise FileTooLargeError(
            f"{_name(loaded)}: {_megabytes(len(content.data))} MB as {content_type}, but the service accepts at most "
            f"{_megabytes(max_bytes)} MB; scale the image down, save it with a lower quality, or pass the opened image "
            "(PIL.Image.open(...)), which is then sent as JPEG"
        )
    else:
        data = content.data
    return EncodedImage(data, content_type, loaded.source, loaded.pixels)


def _encode(loaded: LoadedImage, max_bytes: int) -> tuple[bytes, str]:
    from PIL import Image

    picture = Image.fromarray(loaded.pixels)  # opaque: transparency is composited while loading
    png = _save(picture, format="PNG")
    if len(png) <= max_bytes:
        return png, "image/png"
    too_large = f"{_name(loaded)}: {_megabytes(len(png))} MB as PNG, but the service accepts at most"
    if max(picture.size) <= 65_500:  # the largest side of a JPEG that Pillow writes
        for quality in _JPEG_QUALITIES:
            jpeg = _save(picture, format="JPEG", quality=quality, subsampling=0)
            if len(jpeg) <= max_bytes:
                _log.warning("%s %s MB; it is sent as JPEG of quality %d", too_large, _megabytes(max_bytes), quality)
                return jpeg, "image/jpeg"
    raise FileTooLargeError(f"{too_large} {_megabytes(max_bytes)} MB, and as JPEG it is larger too; scale it down")


def _save(picture: PilImage, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def _name(loaded: LoadedImage) -> str:
    return loaded.source or "the image"


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f}".removesuffix(".0")
