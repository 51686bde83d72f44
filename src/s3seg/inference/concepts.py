"""`Concept`: what examples on some pictures show, to be found on others."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from s3seg.errors import InvalidRequestError
from s3seg.results.files import write_atomically

FORMAT = "s3seg.concept/1"
SUFFIX = ".safetensors"
MAX_EXAMPLES = 16
"""Pictures that a concept may have."""
MAX_BOXES = 64
"""Boxes that a concept may have on all of them."""

_MAX_FILE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Concept:
    """Examples of what to find, perhaps with words, encoded by one checkpoint, to be used on any picture.

    `Segmenter.concept` makes it. Two concepts are equal if they are the same object.

    Attributes:
        name: What results call it.
        words: The words that are searched too, or None.
        tokens: float32 (boxes, C), what the network made of the examples.
        examples: The number of pictures.
        boxes: The number of boxes on them.
        fingerprint: Of the weights that made it; no others can use it.
        model: Name and version of the checkpoint that made it, for messages.
    """

    name: str
    words: str | None
    tokens: np.ndarray
    examples: int
    boxes: int
    fingerprint: str
    model: str

    def __repr__(self) -> str:
        return f"Concept({self.name!r}, words={self.words!r}, examples={self.examples}, boxes={self.boxes})"

    def require_made_by(self, fingerprint: str, model: str) -> None:
        """Check that the weights with this fingerprint made the concept.

        Raises:
            InvalidRequestError: Others did; the message names both.
        """
        if self.fingerprint != fingerprint:
            raise InvalidRequestError(
                f"the concept {self.name!r} was made by {self.model} and cannot be used by {model}, which has other "
                "weights: make it again from its examples"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save it as a safetensors file; after a failure there is no partly written file.

        Raises:
            InvalidRequestError: The file name does not end in .safetensors.
        """
        if Path(path).suffix != SUFFIX:
            raise InvalidRequestError(f"a concept is saved as {SUFFIX}, got {os.fspath(path)!r}")
        from safetensors.numpy import save

        described = {"format": FORMAT, "name": self.name, "words": self.words, "examples": self.examples}
        described |= {"boxes": self.boxes, "fingerprint": self.fingerprint, "model": self.model}
        return write_atomically(path, save({"tokens": self.tokens}, {"s3seg": json.dumps(described)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Concept:
        """Load what `save` wrote; the name is that of the file if the concept has no words.

        Raises:
            InvalidRequestError: The file is no concept, or is damaged.
            OSError: It cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        file = Path(path)
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidRequestError(f"{file} is too large for a concept; was it made with s3seg concept make?")
        content = file.read_bytes()
        try:
            described = _described(content)
            tokens = load(content)["tokens"]
            concept = cls(
                name=str(described["name"]),
                words=None if described["words"] is None else str(described["words"]),
                tokens=tokens,
                examples=int(described["examples"]),
                boxes=int(described["boxes"]),
                fingerprint=str(described["fingerprint"]),
                model=str(described["model"]),
            )
        except (SafetensorError, ValueError, KeyError, TypeError) as err:
            raise InvalidRequestError(f"{file} is not a concept that s3seg saved, or is damaged: {err!r:.80}") from err
        if tokens.ndim != 2 or tokens.dtype != np.float32 or not 1 <= len(tokens) <= MAX_BOXES:
            raise InvalidRequestError(f"{file} is damaged: its tokens are {tokens.dtype} of shape {tokens.shape}")
        if not np.isfinite(tokens).all():
            raise InvalidRequestError(f"{file} is damaged: its tokens are not finite")
        return concept if concept.words else replace(concept, name=file.stem)


def _described(content: bytes) -> dict[str, Any]:
    """Return the description in the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header["__metadata__"]["s3seg"])
    if described["format"] != FORMAT:
        raise ValueError(f"its format is {described['format']!r:.40}, not {FORMAT!r}")
    return described
