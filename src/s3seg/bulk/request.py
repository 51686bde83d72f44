"""What a bulk run looks for, and with which weights; its key tells whether a run may be continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from s3seg import checkpoints
from s3seg.checkpoints import Checkpoint
from s3seg.errors import CheckpointError
from s3seg.inference.prompts import checked_positive, checked_prompts, checked_threshold

_SAMPLES, _SAMPLE = 64, 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequest:
    """Everything that the results depend on, beside the pictures. Make it with `make`.

    Attributes:
        prompts: In their normal form, each once.
        threshold: Keep instances that score above this, 0..1; None for the checkpoint's own.
        max_instances: Keep at most this many of each prompt; None keeps all.
        checkpoint: Its name, by which each machine finds it.
        weights: A digest of its files, so that no machine takes part with other weights.
        dtype: As for `Segmenter`.
        image_size: As for `Segmenter`.
    """

    prompts: tuple[str, ...]
    threshold: float | None
    max_instances: int | None
    checkpoint: str
    weights: str
    dtype: str
    image_size: int | None

    @classmethod
    def make(
        cls,
        prompts: str | Sequence[str],
        *,
        threshold: float | None = None,
        max_instances: int | None = None,
        checkpoint: str | Path | None = None,
        dtype: str = "auto",
        image_size: int | None = None,
    ) -> BulkRequest:
        """Check what a user asked for, and find the checkpoint.

        Raises:
            PromptError: A prompt is empty or not text.
            InvalidRequestError: The threshold or a number is out of range.
            CheckpointNotFoundError: The checkpoint is not on this machine.
        """
        normal = tuple(dict.fromkeys(checked_prompts(prompts, has_boxes=False)))
        found = checkpoints.resolve(checkpoint)
        return cls(
            prompts=normal,
            threshold=None if threshold is None else checked_threshold(threshold),
            max_instances=None if max_instances is None else checked_positive("max_instances", max_instances),
            checkpoint=str(found.path.absolute()) if found.origin == "local" else found.name,
            weights=digest_of_weights(found),
            dtype=dtype,
            image_size=None if image_size is None else checked_positive("image_size", image_size),
        )

    def find_checkpoint(self) -> Checkpoint:
        """Return the checkpoint on this machine.

        Raises:
            CheckpointNotFoundError: It is not here.
            CheckpointError: One of this name is here, but with other weights than the run was started with.
        """
        found = checkpoints.resolve(self.checkpoint)
        if digest_of_weights(found) != self.weights:
            raise CheckpointError(
                f"the checkpoint {self.checkpoint!r} of this machine is not the one that the run was started with; "
                "install the same version on every machine"
            )
        return found

    def key(self, source: str) -> str:
        """Return a short text that is the same for the same request on the same input.

        Args:
            source: The input as an address.
        """
        return hashlib.sha256(json.dumps([source, self.to_dict()]).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON values."""
        return {**asdict(self), "prompts": list(self.prompts)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BulkRequest:
        """Read what `to_dict` returned."""
        return cls(**{**values, "prompts": tuple(values["prompts"])})


def digest_of_weights(checkpoint: Checkpoint) -> str:
    """Return a digest of the version, and of the size and 64 samples of each weights file.

    It takes milliseconds also for files of several GB, and changes with any training.
    """
    digest = hashlib.sha256(checkpoint.version.encode() if checkpoint.origin != "local" else b"local")
    for file in checkpoint.files:
        size = file.stat().st_size
        digest.update(f"\n{file.name} {size} ".encode())
        with file.open("rb") as content:
            for start in range(0, max(size, 1), max(size // _SAMPLES, _SAMPLE)):
                content.seek(start)
                digest.update(content.read(_SAMPLE))
    return digest.hexdigest()[:16]
