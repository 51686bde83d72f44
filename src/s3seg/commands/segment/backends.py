"""Where pictures are segmented: with a checkpoint on this machine, or by a remote service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from s3seg import checkpoints
from s3seg.checkpoints import Checkpoint
from s3seg.checkpoints.metadata import CheckpointMetadata
from s3seg.commands.segment.options import ModelOptions
from s3seg.errors import InvalidRequestError
from s3seg.inference.calibration import Calibration

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.inference.segmenter import Segmenter


class Backend(Protocol):
    """What a run needs from whatever segments its pictures."""

    @property
    def loading(self) -> str:
        """A description of what `load` does, for the progress bar."""
        ...

    def identity(self) -> list[Any]:
        """Return JSON values that change when results may change; used in resume keys."""
        ...

    def load(self) -> Segmenter | Client:
        """Make the model ready.

        Raises:
            S3segError: It cannot be loaded or reached.
        """
        ...

    def describe(self, loaded: Any) -> tuple[str, str]:
        """Return a label and a line that say which model was used."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBackend:
    """A checkpoint on this machine.

    Attributes:
        checkpoint: The resolved checkpoint: its files make the resume keys, and are the ones that are loaded.
        device: As for `Segmenter`.
        dtype: As for `Segmenter`.
        image_size: As for `Segmenter`.
        calibration: As for `Segmenter`.
        clicks: Whether it must have a click head.
    """

    checkpoint: Checkpoint
    device: str = "auto"
    dtype: str = "auto"
    image_size: int | None = None
    calibration: Calibration | None = None
    clicks: bool = False

    loading = "loading the model"

    def identity(self) -> list[Any]:
        """Return the version, and size and time of each weights file."""
        files = [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in self.checkpoint.files]
        return [self.checkpoint.version, files]

    def load(self) -> Segmenter:
        """Load the checkpoint.

        Raises:
            CheckpointError: Its files cannot be used.
            InvalidRequestError: The device, precision or image size cannot be used, or there is no click head.
        """
        from s3seg.inference.segmenter import Segmenter

        segmenter = Segmenter(
            self.checkpoint,
            device=self.device,
            dtype=self.dtype,
            image_size=self.image_size,
            calibration=self.calibration,
        )
        if self.clicks:
            segmenter.network.require_clicks()
        return segmenter

    def describe(self, loaded: Segmenter) -> tuple[str, str]:
        """Name the checkpoint, its device and precision, and what it knows."""
        model = loaded.model
        description = f"{model.name} {model.version} on {model.device} in {model.dtype}"
        return "checkpoint", f"{description}; {model.summary}" if model.summary else description


@dataclass(frozen=True, slots=True)
class RemoteBackend:
    """A service that segments.

    Attributes:
        url: Its address.
        token: The access token; None to read it from the environment, or to use the sign-in that is kept.
    """

    url: str
    token: str | None

    loading = "connecting to the service"

    def identity(self) -> list[Any]:
        """Return the address; which model the service runs is unknown."""
        return [self.url]

    def load(self) -> Client:
        """Connect, and check address and token once instead of for each picture.

        Raises:
            S3segError: The service cannot be reached, or refuses the token.
        """
        from s3seg.commands.service import connect

        client = connect(self.url, self.token)
        client.me()
        return client

    def describe(self, loaded: Client) -> tuple[str, str]:
        """Name the service's address."""
        return "service", self.url


def choose_backend(
    options: ModelOptions,
    *,
    boxes: bool,
    clicks: bool = False,
    concept: bool = False,
    local: Sequence[str] = (),
) -> Backend:
    """Return the backend for the options. Resolves the checkpoint, and loads nothing.

    Args:
        options: Which model to use.
        boxes: Whether the request has boxes.
        clicks: Whether it has points.
        concept: Whether it has a concept.
        local: Options of the request that a service does not take.

    Raises:
        CheckpointNotFoundError: The checkpoint is not on this machine.
        InvalidRequestError: The options contradict each other, or the model does not support boxes.
    """
    if options.url is None:
        if options.token is not None:
            raise InvalidRequestError("--token is for a service; name its address with --url")
        checkpoint = checkpoints.resolve(options.checkpoint)
        if boxes or concept:
            _check_box_prompts(checkpoint)
        return LocalBackend(
            checkpoint=checkpoint,
            device=options.device,
            dtype=options.dtype,
            image_size=options.image_size,
            calibration=None if options.calibration is None else Calibration.load(options.calibration),
            clicks=clicks,
        )
    local_only = {
        "--checkpoint": options.checkpoint is not None,
        "--device": options.device != "auto",
        "--dtype": options.dtype != "auto",
        "--image-size": options.image_size is not None,
        "--calibration": options.calibration is not None,
    }
    if given := [name for name, is_given in local_only.items() if is_given]:
        raise InvalidRequestError(f"{', '.join(given)} cannot be used with --url: the service chooses its own model")
    if local:
        raise InvalidRequestError(f"{', '.join(local)} cannot be used with --url: the service does not take that yet")
    if boxes:
        raise InvalidRequestError("boxes cannot be used with --url: the service takes text prompts and points")
    if concept:
        raise InvalidRequestError("a concept cannot be used with --url: it belongs to weights on this machine")
    return RemoteBackend(options.url, options.token)


def _check_box_prompts(checkpoint: Checkpoint) -> None:
    metadata = CheckpointMetadata.from_folder(checkpoint.folder)
    if not metadata.box_prompts:
        raise InvalidRequestError(
            f"the {metadata.name or checkpoint.name} checkpoint does not support boxes; use a text prompt, "
            "or --checkpoint litetext"
        )
