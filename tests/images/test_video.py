"""Frames of a video, beside PyAV's own reading."""

from __future__ import annotations

import av
import numpy as np
import pytest

import s3seg
from s3seg.errors import ImageDecodeError, InvalidRequestError


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten frames of falling brightness, at 5 a second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 250 - 20 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_come_in_order_with_their_numbers(clip):
    frames = list(s3seg.video_frames(clip))
    assert [frame.source for frame in frames] == [f"{clip}#frame={k}" for k in range(10)]
    assert {frame.size for frame in frames} == {(48, 64)}
    with av.open(str(clip)) as container:
        for ours, theirs in zip(frames, container.decode(video=0), strict=True):
            assert np.array_equal(ours.pixels, theirs.to_ndarray(format="rgb24"))


def test_some_frames_can_be_chosen(clip):
    def numbers(**options):
        return [int(frame.source.rpartition("=")[2]) for frame in s3seg.video_frames(clip, **options)]

    assert numbers(every=4) == [0, 4, 8]
    assert numbers(start=1.0, end=1.6) == [5, 6, 7]
    assert numbers(start=0.5, every=3) == [3, 6, 9]
    assert numbers(end=0) == []


def test_frames_are_read_when_they_are_asked_for(clip):
    frames = s3seg.video_frames(clip)
    assert next(frames).source.endswith("#frame=0")
    frames.close()


def test_what_is_not_a_video_is_an_error_that_names_it(tmp_path, clip):
    (tmp_path / "x.mp4").write_bytes(b"nonsense")
    for path in (tmp_path / "x.mp4", tmp_path / "none.mp4"):
        with pytest.raises(ImageDecodeError, match=path.name):
            list(s3seg.video_frames(path))
    with pytest.raises(ImageDecodeError, match="too large"):
        list(s3seg.video_frames(clip, max_pixels=100))


@pytest.mark.parametrize("options", [{"every": 0}, {"every": True}, {"start": -1}, {"start": 2, "end": 1}])
def test_a_choice_that_is_none_is_refused_at_once(clip, options):
    with pytest.raises(InvalidRequestError):
        s3seg.video_frames(clip, **options)
