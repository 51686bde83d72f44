"""The frames of a video, one at a time, for `Segmenter.segment_many`. Needs ``pip install 's3seg[video]'``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from s3seg.errors import ImageDecodeError, InvalidRequestError
from s3seg.images import MAX_PIXELS
from s3seg.images._loaded import Limits, LoadedImage

_NEEDS_AV = "reading videos needs PyAV: pip install 's3seg[video]'"


def video_frames(
    path: str | os.PathLike[str],
    *,
    every: int = 1,
    start: float = 0.0,
    end: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[LoadedImage]:
    """Read the frames of a video file as pictures, one at a time: only the current one is in memory.

        for frame, found in seg.segment_many(s3seg.video_frames("street.mp4", every=10), "car"):
            print(frame.source, len(found))

    Args:
        path: A video file.
        every: Take one frame in so many, beginning with the first; 1 takes all.
        start: Leave out frames before this time, in seconds.
        end: Stop at this time, in seconds; None reads to the end.
        max_pixels: Refuse videos with more pixels in a frame.

    Yields:
        Pictures with the source "PATH#frame=N", where N counts all frames of the video from 0. They are upright, as
        the video says how it is to be turned.

    Raises:
        ImageDecodeError: The file is not a video, or is damaged; frames before the damage were yielded.
        InvalidRequestError: PyAV is not installed, or an argument is out of range.
    """
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise InvalidRequestError(f"every must be a whole number, 1 or more, got {every!r:.60}")
    if not start >= 0 or (end is not None and not end >= start):
        raise InvalidRequestError(f"start and end are seconds, 0 <= start <= end, got {start!r:.40} and {end!r:.40}")
    try:
        import av
    except ImportError as err:
        raise InvalidRequestError(_NEEDS_AV) from err
    return _frames(av, os.fspath(path), every, start, end, Limits(pixels=max_pixels, bytes=0, memory=0))


def _frames(av: Any, path: str, every: int, start: float, end: float | None, limits: Limits) -> Iterator[LoadedImage]:
    try:
        with av.open(path, mode="r") as container:
            if not container.streams.video:
                raise ImageDecodeError(f"{path}: has no video")
            stream = container.streams.video[0]
            limits.check_size(stream.codec_context.width or 1, stream.codec_context.height or 1, path)
            stream.thread_type = "AUTO"
            first = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
            taken = 0
            for number, frame in enumerate(container.decode(stream)):
                time = number / float(stream.average_rate or 25) if frame.time is None else frame.time - first
                if end is not None and time >= end:
                    return
                if time < start:
                    continue
                if taken % every == 0:
                    limits.check_size(frame.width, frame.height, path)
                    yield _picture(frame, f"{path}#frame={number}")
                taken += 1
    except OSError as err:  # no such file, or PyAV's errors, which derive from this
        raise ImageDecodeError(f"{path}: cannot be read as a video: {getattr(err, 'strerror', None) or err}") from err
    except ValueError as err:
        raise ImageDecodeError(f"{path}: cannot be read as a video: {err}") from err


def _picture(frame: Any, name: str) -> LoadedImage:
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # counter-clockwise
    pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    steps = (f"turned by {90 * turns} degrees",) if turns else ()
    return LoadedImage(pixels, name, "video", frame.format.name, steps)
