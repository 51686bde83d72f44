"""What a checkpoint says of itself, in the ``s3seg`` section of its ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3seg.checkpoints.vocabulary import Vocabulary
from s3seg.errors import CheckpointError

REFERENCE_THRESHOLD = 0.5
"""Instances above this score are kept, where a checkpoint says nothing else: the reference implementation's."""


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """The properties of a checkpoint that its weights do not show.

    Attributes:
        name: What the model is called in results; None to call it what the user called the checkpoint.
        version: Of the weights; None where it says none.
        threshold: The score above which instances are kept by default, 0..1.
        box_prompts: Whether it has learnt to use box prompts.
        vocabulary: All that it knows; None for a model that takes any words.
        summary: One line on what it knows; None where it says nothing.
    """

    name: str | None = None
    version: str | None = None
    threshold: float = REFERENCE_THRESHOLD
    box_prompts: bool = True
    vocabulary: Vocabulary | None = None
    summary: str | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> CheckpointMetadata:
        """Read the card of a checkpoint; full SAM 3 has none, and gets the defaults.

        Raises:
            CheckpointError: The section is there and makes no sense.
        """
        config = folder / "config.json"
        if not config.is_file():
            return cls()
        try:
            section: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")).get("s3seg") or {}
            words = section.get("vocabulary")
            return cls(
                name=section.get("name"),
                version=section.get("version"),
                threshold=float(section.get("threshold", REFERENCE_THRESHOLD)),
                box_prompts=bool(section.get("box_prompts", True)),
                vocabulary=None if words is None else Vocabulary(words),
                summary=section.get("summary"),
            )
        except (OSError, ValueError, TypeError, AttributeError) as err:
            raise CheckpointError(f"the s3seg section of {config} cannot be read: {err!r}") from err
