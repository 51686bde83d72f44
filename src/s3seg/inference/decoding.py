"""Reading pictures in a decoding process; the service itself does not import this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3seg import images
from s3seg.results.windows import cut_pixels
from s3seg.sam3.resize import resize


def read_resized(
    content: bytes,
    *,
    name: str,
    side: int,
    max_pixels: int,
    max_memory: int,
    windows: Sequence[tuple[int, int, int, int]] | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Decode a picture, and resize it or windows of it to the input of the network.

    Args:
        content: The bytes of a picture file.
        name: What error messages call the picture.
        side: Side of the network's input in pixels.
        max_pixels: Largest picture.
        max_memory: Most memory that decoding may take, as estimated from the header.
        windows: (y1, x1, y2, x2) of each window, inside the picture; None for the whole picture.

    Returns:
        {"size": [height, width]}, the size before resizing, and the pixels: uint8 (N, 3, side, side), C-contiguous,
        where N is the number of windows, or 1.
    """
    reduce_to = side if windows is None else None
    picture = images.load(content, name=name, max_pixels=max_pixels, max_memory=max_memory, reduce_to=reduce_to)
    shown = [picture.pixels] if windows is None else cut_pixels(picture.pixels, windows, name=name)
    resized = [resize(pixels, side).contiguous().numpy().tobytes() for pixels in shown]
    return {"size": picture.full_size}, b"".join(resized)
