"""The metadata of a checkpoint: the ``s3seg`` section of its ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3seg.checkpoints.vocabulary import Vocabulary
from s3seg.errors import CheckpointError

REFERENCE_THRESHOLD = 0.5
"""Default score threshold of a checkpoint that does not set one, as in the reference implementation."""


CONCEPTS_NOT_MEASURED = (
    "whether this checkpoint finds things by examples on other pictures was not measured; look at what it finds"
)
"""What users of concepts are told of a checkpoint that says nothing about them."""


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """Properties of a checkpoint that cannot be read from its weights.

    Attributes:
        name: Name of the model in results; None to use the name by which the checkpoint was loaded.
        version: Version of the weights, if given.
        threshold: Score above which instances are kept by default, 0..1.
        box_prompts: Whether the model was trained to use box prompts.
        vocabulary: The phrases the model was trained on; None if it accepts any text.
        summary: One line on what the model can find, if given.
        concept_hint: One line for users of concepts: how well the model finds on one picture what is shown on others.
        drawings_only: Whether the model was trained on drawings and does not know photographs.
    """

    name: str | None = None
    version: str | None = None
    threshold: float = REFERENCE_THRESHOLD
    box_prompts: bool = True
    vocabulary: Vocabulary | None = None
    summary: str | None = None
    concept_hint: str = CONCEPTS_NOT_MEASURED
    drawings_only: bool = False

    @classmethod
    def from_folder(cls, folder: Path) -> CheckpointMetadata:
        """Read the metadata of the checkpoint in ``folder``.

        A checkpoint without an ``s3seg`` section, such as full SAM 3, gets the defaults.

        Raises:
            CheckpointError: The section is malformed.
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
                concept_hint=str(section.get("concept_hint", CONCEPTS_NOT_MEASURED)),
                drawings_only=bool(section.get("drawings_only", False)),
            )
        except (OSError, ValueError, TypeError, AttributeError) as err:
            raise CheckpointError(f"the s3seg section of {config} cannot be read: {err!r}") from err
