"""Reading pictures in a decoding process; the service itself does not import this."""

from __future__ import annotations

from typing import Any

from s3seg import images
from s3seg.sam3.predictor import resize


def read_resized(
    content: bytes, *, name: str, side: int, max_pixels: int, max_memory: int
) -> tuple[dict[str, Any], bytes]:
    """Decode a picture and resize it to the input of the network.

    Args:
        content: The bytes of a picture file.
        name: What error messages call the picture.
        side: Side of the network's input in pixels.
        max_pixels: Largest picture.
        max_memory: Most memory that decoding may take, as estimated from the header.

    Returns:
        {"size": [height, width]}, the size before resizing, and the pixels: uint8 (1, 3, side, side), C-contiguous.
    """
    picture = images.load(content, name=name, max_pixels=max_pixels, max_memory=max_memory, reduce_to=side)
    resized = resize(picture.pixels, side)
    return {"size": picture.full_size}, resized.contiguous().numpy().tobytes()
