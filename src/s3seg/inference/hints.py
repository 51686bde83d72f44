"""What a user should know before trusting a result: the limits of a checkpoint that this prompt or picture meets."""

from __future__ import annotations

from s3seg.checkpoints import FOR_PHOTOGRAPHS
from s3seg.checkpoints.metadata import CheckpointMetadata
from s3seg.results.hints import Hint
from s3seg.tasks.prompts import several_things, several_things_hint


def hints_for(prompt: str, metadata: CheckpointMetadata, *, name: str, photograph: bool) -> tuple[Hint, ...]:
    """Return the hints for a prompt on a picture.

    Args:
        prompt: The prompt; empty with boxes only.
        metadata: What the checkpoint says about itself.
        name: Its name.
        photograph: Whether the picture looks like a photograph. Only asked where the checkpoint knows drawings only.
    """
    hints = (
        _photograph(name) if photograph and metadata.drawings_only else None,
        _several_things(prompt) if prompt else None,
        _unknown_words(prompt, metadata, name) if prompt else None,
    )
    return tuple(hint for hint in hints if hint)


def channel_order_hint() -> Hint:
    """Return the hint for an array whose red and blue look exchanged."""
    return Hint(
        "channel_order",
        "the red and blue of this array look exchanged; if it is in BGR order, as OpenCV reads pictures, pass bgr=True",
    )


def _photograph(name: str) -> Hint:
    return Hint(
        "photograph",
        f"this looks like a photograph, but the {name} checkpoint knows drawings only: do not rely on what it finds "
        f"or misses; for photographs, run: {FOR_PHOTOGRAPHS}",
    )


def _several_things(prompt: str) -> Hint | None:
    text = several_things_hint(prompt)
    return Hint("several_things", text, tuple(several_things(prompt))) if text else None


def _unknown_words(prompt: str, metadata: CheckpointMetadata, name: str) -> Hint | None:
    if metadata.vocabulary is None or not (unknown := metadata.vocabulary.unknown(prompt)):
        return None
    words = ", ".join(repr(word) for word in unknown)
    return Hint(
        "unknown_words",
        f"the {name} checkpoint does not know {words}; for other words, run: {FOR_PHOTOGRAPHS}",
        tuple(unknown),
    )
