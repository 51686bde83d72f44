"""Pictures in, rows out: what every process of a run does with its share of the pictures.

`Segmenter.segment_many` does the work; this module names pictures for it, and turns its results and errors into rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from s3seg.bulk import results
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.results import Row
from s3seg.bulk.storage import S3Access, read_picture, shown
from s3seg.errors import ImageDecodeError, InvalidRequestError, S3segError
from s3seg.results.segmentation import Segmentation


class PictureFile:
    """A picture at an address. Its bytes are read when it is decoded, on the thread that decodes it.

    Args:
        address: A path, ``s3://`` address or URL.
        s3: How to reach S3.
        content: The bytes, if the caller has them.
    """

    def __init__(self, address: str, s3: S3Access, content: bytes | None = None) -> None:
        self._address = address
        self._s3 = s3
        self._content = content
        self.sha256: str | None = None

    def __str__(self) -> str:
        return shown(self._address)

    def read_bytes(self) -> bytes:
        """Return the bytes, and remember their SHA-256; `s3seg.images.load` calls this.

        Raises:
            ImageDecodeError: They cannot be read.
            ForbiddenError: The S3 server refuses them to the access key.
            UnavailableError: The S3 server does not respond.
        """
        content = read_picture(self._address, self._s3) if self._content is None else self._content
        self.sha256 = hashlib.sha256(content).hexdigest()
        return content


class SegmentsMany(Protocol):
    """The method of `Segmenter` that a run uses."""

    def segment_many(
        self,
        sources: Iterable[PictureFile],
        prompt: Sequence[str],
        *,
        threshold: float | None,
        max_instances: int | None,
        batch_size: int | None,
        on_error: Callable[[PictureFile, S3segError], None],
    ) -> Iterator[tuple[PictureFile, list[Segmentation]]]:
        """See `s3seg.Segmenter.segment_many`."""
        ...


def segment_rows(
    segmenter: SegmentsMany,
    pictures: Sequence[PictureFile],
    request: BulkRequest,
    *,
    batch_size: int | None = None,
    on_picture: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Segment pictures, and return the row of each, in order.

    A picture that cannot be read has a row with its error.

    Args:
        segmenter: Does the work.
        pictures: Any number.
        request: What to look for.
        batch_size: As for `Segmenter.segment_many`.
        on_picture: Called after each picture.

    Raises:
        S3segError: Something is wrong that is not the fault of a picture: the network, the S3 server, a prompt.
    """
    rows: dict[PictureFile, Row] = {}

    def failed(picture: PictureFile, err: S3segError) -> None:
        if not isinstance(err, ImageDecodeError):
            raise err
        rows[picture] = results.error_row(str(err), picture.sha256)
        on_picture()

    for picture, found in segmenter.segment_many(
        pictures,
        list(request.prompts),
        threshold=request.threshold,
        max_instances=request.max_instances,
        batch_size=batch_size,
        on_error=failed,
    ):
        rows[picture] = results.row(found, picture.sha256)
        on_picture()
    return [rows[picture] for picture in pictures]


def load_segmenter(request: BulkRequest, device: str) -> SegmentsMany:
    """Load the checkpoint of a request.

    Raises:
        CheckpointError: It is not on this machine, or is another one.
        InvalidRequestError: The device or precision is not available here.
    """
    from s3seg.inference.segmenter import Segmenter

    checkpoint = request.find_checkpoint()
    return Segmenter(checkpoint, device=device, dtype=request.dtype, image_size=request.image_size)


class Segment:
    """A stage for a ``ray.data.Dataset`` of yours, which has a column ``uri`` or ``bytes`` with pictures.

        dataset.map_batches(
            s3seg.bulk.Segment,
            fn_constructor_args=(["cat", "dog"],),
            batch_format="pyarrow",
            batch_size=32,
            compute=ray.data.ActorPoolStrategy(size=4),
            num_cpus=1,
        )

    It adds the columns sha256, height, width, error and instances, which are described in the guide to many pictures.
    The checkpoint is loaded once in each process.
    """

    def __init__(
        self,
        prompts: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        checkpoint: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        image_size: int | None = None,
        batch_size: int | None = None,
        s3: S3Access | None = None,
    ) -> None:
        """Load the checkpoint.

        Args:
            prompts: What to look for in each picture.
            threshold: As for `Segmenter.segment_many`.
            max_instances: As for `Segmenter.segment_many`.
            checkpoint: As for `Segmenter`.
            device: As for `Segmenter`.
            dtype: As for `Segmenter`.
            image_size: As for `Segmenter`.
            batch_size: As for `Segmenter.segment_many`.
            s3: How to read ``s3://`` addresses; None takes AWS's environment variables.

        Raises:
            S3segError: A prompt or the checkpoint cannot be used.
        """
        self._request = BulkRequest.make(
            prompts,
            threshold=threshold,
            max_instances=max_instances,
            checkpoint=checkpoint,
            dtype=dtype,
            image_size=image_size,
        )
        self._segmenter = load_segmenter(self._request, device)
        self._batch_size = batch_size
        self._s3 = s3 or S3Access()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the columns of results.

        Raises:
            InvalidRequestError: It is not a table of Arrow, or has neither ``uri`` nor ``bytes``.
            S3segError: Something is wrong that is not the fault of a picture.
        """
        if not isinstance(batch, pa.Table):
            raise InvalidRequestError(
                f'Segment takes tables of Arrow, got {type(batch).__name__}: add batch_format="pyarrow"'
            )
        names = set(batch.column_names)
        if not names & {"uri", "bytes"}:
            raise InvalidRequestError(f"Segment needs a column uri or bytes; the batch has {', '.join(sorted(names))}")
        uris: list[Any] = batch["uri"].to_pylist() if "uri" in names else [""] * len(batch)
        contents: list[Any] = batch["bytes"].to_pylist() if "bytes" in names else [None] * len(batch)
        pictures = [
            PictureFile(uri or f"picture {k}", self._s3, content)
            for k, (uri, content) in enumerate(zip(uris, contents, strict=True), start=1)
        ]
        rows = segment_rows(self._segmenter, pictures, self._request, batch_size=self._batch_size)
        table = pa.Table.from_pylist(rows, schema=results.PICTURE)
        for field in results.PICTURE:
            batch = batch.append_column(field, table[field.name])
        return batch
