"""What a user should know about a result beside the result itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HintKind = Literal["several_things", "unknown_words", "photograph", "channel_order", "other"]


@dataclass(frozen=True, slots=True)
class Hint:
    """One thing that a user should know about a result, and what to do about it.

    Attributes:
        kind: "several_things" (the prompt looks like a list), "unknown_words" (the checkpoint does not know them),
            "photograph" (the picture looks like one, and the checkpoint knows drawings only), "channel_order" (the red
            and blue of an array look exchanged), or "other".
        text: One line for users of the library and of the command line.
        words: The words of the prompt that it is about; empty for hints on the picture.
    """

    kind: HintKind
    text: str
    words: tuple[str, ...] = ()


def joined(hints: tuple[Hint, ...]) -> str | None:
    """Return hints as one line, or None if there are none."""
    return "; ".join(hint.text for hint in hints) or None
