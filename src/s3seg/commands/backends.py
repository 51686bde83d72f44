"""Who finds: a checkpoint on this machine, or a service elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from s3seg.checkpoints import Checkpoint
from s3seg.errors import InvalidRequestError

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.commands.keys import Request
    from s3seg.inference.segmenter import Segmenter


class Backend(Protocol):
    """What a run needs to know of it."""

    @property
    def beginning(self) -> str:
        """What `load` does, for the progress bar."""
        ...

    def identity(self) -> list[Any]:
        """What changes when it may find something else; plain JSON values."""
        ...

    def load(self, request: Request) -> Segmenter | Client:
        """Make it ready.

        Raises:
            S3segError: It cannot be, or cannot do what is asked.
        """
        ...

    def describe(self, loaded: Any) -> tuple[str, str]:
        """A label and a line for people."""
        ...


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """A checkpoint, on a device."""

    checkpoint: Checkpoint
    device: str

    beginning = "loading the model"

    def identity(self) -> list[Any]:
        """See `Backend.identity`."""
        files = [(file.name, (status := file.stat()).st_size, status.st_mtime_ns) for file in self.checkpoint.files]
        return [self.checkpoint.version, files]

    def load(self, request: Request) -> Segmenter:
        """See `Backend.load`."""
        from s3seg.inference.segmenter import Segmenter

        segmenter = Segmenter(
            self.checkpoint.name, device=self.device, dtype=request.dtype, image_size=request.image_size
        )
        if (request.boxes or request.negative_boxes) and not segmenter.metadata.box_prompts:
            raise InvalidRequestError(
                f"the {segmenter.model.name} checkpoint has not learnt box prompts; use words, or --checkpoint sam3"
            )
        return segmenter

    def describe(self, loaded: Segmenter) -> tuple[str, str]:
        """See `Backend.describe`."""
        model = loaded.model
        which = f"{model.name} {model.version} on {model.device} in {model.dtype}"
        return "checkpoint", f"{which}; {loaded.metadata.summary}" if loaded.metadata.summary else which


@dataclass(frozen=True, slots=True)
class RemoteBackend:
    """A service, by its address; a token of None is looked for in the environment."""

    url: str
    token: str | None

    beginning = "asking the service"

    def identity(self) -> list[Any]:
        """See `Backend.identity`; which model answers there is not known before."""
        return [self.url]

    def load(self, request: Request) -> Client:
        """See `Backend.load`."""
        from s3seg.client import Client

        if request.boxes or request.negative_boxes:
            raise InvalidRequestError("the service takes words only: leave --url out, or the boxes")
        if request.image_size is not None or request.dtype != "auto":
            raise InvalidRequestError("--image-size and --dtype are the service's own business: leave them out")
        client = Client(self.url, self.token)
        client.me()  # a wrong address or token is said once, not for each picture
        return client

    def describe(self, loaded: Client) -> tuple[str, str]:
        """See `Backend.describe`."""
        return "service", self.url
