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
        notes: What was lost or left out in reading and encoding the image, in plain words for the user.
    """

    data: bytes
    content_type: str
    source: str | None
    pixels: npt.NDArray[np.uint8]
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> dict[str, Any]:
        """What results show of the image: fields of a `Segmentation`."""
        return {"source": self.source, "image": self.pixels, "notes": self.notes}


def prepare(source: ImageSource, *, max_bytes: int = MAX_UPLOAD_BYTES) -> EncodedImage:
    """Read an image for upload.

    PNG, JPEG and WebP files are kept as they are, wherever they come from (a path, a URL, bytes, a file object). Other
    images are converted to PNG. What is too large then, files of the accepted formats too, is converted to JPEG, with
    the highest quality that fits; this loses detail, which is logged as a warning and noted.

    Args:
        source: Any source that `s3seg.images.load` accepts.
        max_bytes: Largest file to upload.

    Raises:
        ImageDecodeError: The image cannot be read.
        FileTooLargeError: The image is larger than ``max_bytes`` as a JPEG of low quality too.
    """
    from s3seg import images
    from s3seg.images.content import read_content

    content = read_content(source)
    loaded = images.load(source) if content is None else images.load(content.data, name=content.name)
    content_type = _CONTENT_TYPES.get(loaded.format or "")
    if content is not None and content_type is not None:
        data, as_format = content.data, content_type.removeprefix("image/").upper()
    else:
        from PIL import Image

        # opaque: transparency is composited while loading
        data, as_format, content_type = _save(Image.fromarray(loaded.pixels), format="PNG"), "PNG", "image/png"
    if len(data) <= max_bytes:
        return EncodedImage(data, content_type, loaded.source, loaded.pixels, loaded.notes)
    size = f"{_megabytes(len(data))} MB as {'WebP' if as_format == 'WEBP' else as_format}"
    why = f"{size}, but the service accepts at most {_megabytes(max_bytes)} MB"
    data, quality = _as_jpeg(loaded, why, max_bytes)
    _log.warning("%s: %s; it is sent as JPEG of quality %d", _name(loaded), why, quality)
    note = f"it was sent as JPEG of quality {quality}, as it is {size}"
    return EncodedImage(data, "image/jpeg", loaded.source, loaded.pixels, (*loaded.notes, note))


def _as_jpeg(loaded: LoadedImage, why: str, max_bytes: int) -> tuple[bytes, int]:
    """Return the image as JPEG, upright and opaque, and the quality: the highest one that fits."""
    from PIL import Image

    picture = Image.fromarray(loaded.pixels)
    if max(picture.size) <= 65_500:  # the largest side of a JPEG that Pillow writes
        for quality in _JPEG_QUALITIES:
            jpeg = _save(picture, format="JPEG", quality=quality, subsampling=0)
            if len(jpeg) <= max_bytes:
                return jpeg, quality
    raise FileTooLargeError(f"{_name(loaded)}: {why}, and as JPEG it is larger too; scale it down")


def _save(picture: PilImage, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.getvalue()


def _name(loaded: LoadedImage) -> str:
    return loaded.source or "the image"


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f}".removesuffix(".0")
