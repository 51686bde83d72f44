"""Working ahead: what is yielded when the source changes or fails."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageSequence

from s3seg import images
from s3seg.inference.prefetch import batches, map_ahead


def _slowly(source):
    time.sleep(0.01)
    return int(images.load(source).pixels[0, 0, 0])


def _broken(count):
    yield from range(count)
    raise OSError("the file is cut off")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_frames_of_one_picture_are_read_before_it_goes_on(kind):
    greys = [10, 50, 90, 130, 170, 210]
    frames, file = [Image.new("RGB", (8, 8), (grey,) * 3) for grey in greys], io.BytesIO()
    options = {} if kind == "TIFF" else {"lossless": True, "duration": 50}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
    moving = ImageSequence.Iterator(Image.open(file))
    found = [grey for _, grey in map_ahead(_slowly, moving, ahead=2, may_change=images.may_change)]
    assert found == greys


def test_only_what_cannot_change_is_read_while_the_next_is_asked_for():
    array = np.zeros((2, 2, 3), np.uint8)
    for source in (array, Image.fromarray(array), io.BytesIO(), ("name", array)):
        assert images.may_change(source)
    for source in ("a.png", b"", images.load(array), ("name", b"")):
        assert not images.may_change(source)


def test_what_came_before_a_failure_of_the_source_is_yielded():
    found = batches(map_ahead(str, _broken(5), ahead=2, may_change=lambda _: False), 3)
    assert [next(found), next(found)] == [[(0, "0"), (1, "1"), (2, "2")], [(3, "3"), (4, "4")]]
    with pytest.raises(OSError, match="cut off"):
        next(found)
