"""Pictures that were encoded for a `Segmenter`: `Embedding`, and `PictureEncoder`, which makes them."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from s3seg import images
from s3seg.errors import S3segError
from s3seg.images import ImageSource, LoadedImage
from s3seg.images.channel_order import looks_like_bgr
from s3seg.inference.clock import milliseconds_since
from s3seg.inference.hints import channel_order_hint
from s3seg.inference.network import EncodedImage, ResizedImage
from s3seg.inference.process_guard import refuse_copying
from s3seg.inference.stages import Sam3Network
from s3seg.results.hints import Hint

S = TypeVar("S")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Embedding:
    """A picture that a `Segmenter` has encoded. Further prompts on it take a fraction of the time of the first.

    Attributes:
        image: The picture.
        encoded: The network's encoding of it.
        milliseconds: Time by stage: "decode" (reading, decoding and resizing the picture) and "image" (encoding it).
            Pictures that were encoded together have equal shares.
        owner: The network that encoded it; no other can use it.
        image_id: Identifies the picture in results; see `Segmentation`.
        hints: What results on this picture say about it.
    """

    image: LoadedImage
    encoded: EncodedImage
    milliseconds: dict[str, float]
    owner: Sam3Network
    image_id: str
    hints: tuple[Hint, ...] = ()

    def __repr__(self) -> str:
        height, width = self.image.size
        return f"Embedding({self.image.source!r}, {width} x {height})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise refuse_copying("an Embedding")


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A picture that was read and resized, but not encoded yet; ``milliseconds`` is what that took."""

    picture: LoadedImage
    resized: ResizedImage
    milliseconds: float
    hints: tuple[Hint, ...]

    @property
    def digest(self) -> str:
        """A digest of what the network sees of the picture: at its input size, which is faster than all pixels."""
        return hashlib.sha256(b"%d x %d " % self.resized.size + self.resized.pixels.numpy().tobytes()).hexdigest()[:16]


class PictureEncoder:
    """Decodes and encodes pictures with one network. Safe to share between threads.

    Args:
        network: The network.
    """

    def __init__(self, network: Sam3Network) -> None:
        self._network = network
        self._encodings = itertools.count(1)

    def decode(self, source: ImageSource, *, bgr: bool = False) -> DecodedPicture:
        """Read a picture, and resize it to the network's input.

        Raises:
            ImageDecodeError: It cannot be read.
        """
        start = time.perf_counter()
        picture = images.load(source, bgr=bgr)
        resized = self._network.resize(picture.pixels, picture.size)
        exchanged = picture.format == "array" and not bgr and looks_like_bgr(picture.pixels)
        hints = (channel_order_hint(),) if exchanged else ()
        return DecodedPicture(picture, resized, milliseconds_since(start), hints)

    def decode_or_error(self, source: ImageSource, *, bgr: bool = False) -> DecodedPicture | S3segError:
        """Do what `decode` does; an error is returned."""
        try:
            return self.decode(source, bgr=bgr)
        except S3segError as err:
            return err

    def encode_batches(
        self, groups: Iterable[Sequence[tuple[S, DecodedPicture | S3segError]]]
    ) -> Iterator[tuple[S, Embedding | S3segError]]:
        """Encode batches of decoded pictures, and yield each with its source; errors are passed on, or are new ones."""
        for batch in groups:
            readable = [one for _, one in batch if isinstance(one, DecodedPicture)]
            encoded: Iterator[Embedding | S3segError]
            try:
                encoded = iter(self.encode(readable) if readable else [])
            except S3segError as err:
                encoded = itertools.repeat(err)
            for source, one in batch:
                yield source, next(encoded) if isinstance(one, DecodedPicture) else one

    def encode(self, batch: Sequence[DecodedPicture]) -> list[Embedding]:
        """Encode pictures in one forward pass.

        Raises:
            InferenceError: The network failed, for example because memory ran out.
        """
        start = time.perf_counter()
        encoded = self._network.encode([one.resized for one in batch])
        each = milliseconds_since(start) / len(batch)
        return [
            Embedding(
                one.picture,
                image,
                {"decode": one.milliseconds, "image": each},
                self._network,
                self._image_id(one),
                one.hints,
            )
            for one, image in zip(batch, encoded, strict=True)
        ]

    def _image_id(self, one: DecodedPicture) -> str:
        """Return an id of the picture's content; with the number of the encoding, if the picture has no name."""
        number = "" if one.picture.source else f":{next(self._encodings)}"
        return f"pixels:{one.digest}{number}"
