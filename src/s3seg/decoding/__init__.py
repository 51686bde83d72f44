"""Decoding of untrusted pictures in processes that can be killed, with limits of time and memory.

    pool = DecodingPool("s3seg.edge.inspection:inspect_upload")
    reply, body = await pool.run(content, user_id=..., name="file", max_pixels=50_000_000)

A decoder is C code: a thread that is inside one cannot be stopped, and memory that it has taken is not always given
back. The services therefore decode in child processes. The library (`Segmenter`, `segment_many`) does not: it reads
the user's own pictures, in threads.

The process of the service itself imports neither numpy nor Pillow for this; the children do.
"""

from s3seg.decoding.pool import DecodingOptions, DecodingPool

__all__ = ["DecodingOptions", "DecodingPool"]
