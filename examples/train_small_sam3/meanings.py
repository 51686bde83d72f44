"""What prompts find, as tables: looking up replaces a loop over all things and texts of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .concepts import Vocabulary
from .prompts import Prompt
from .scenes import Thing
from .shapes import COLOUR_NAMES, PATTERNS, SHAPES

NONE = -1
"""Stands for no noun (padding), no known colour or no pattern; of a prompt, for any."""


class Meanings:
    """Compares prompts with things.

    A noun is a number: a concept's index, or the number of concepts plus a shape's index.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.concepts = len(vocabulary)
        self._nouns: dict[tuple[frozenset[int], str | None], np.ndarray] = {}

    def of_thing(self, thing: Thing) -> tuple[int, int, int]:
        """Return the noun, colour and pattern of a thing."""
        noun = thing.concept if thing.concept is not None else self.concepts + SHAPES.index(thing.shape)
        return noun, _index(COLOUR_NAMES, thing.colour), _index(PATTERNS, thing.pattern)

    def compare(self, prompts: Sequence[Prompt | None], things: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare every prompt with every thing.

        Args:
            prompts: T prompts; None finds nothing.
            things: int (..., 3), noun, colour and pattern of each thing; a row of `NONE` is no thing.

        Returns:
            Which things each prompt finds, and about which it is unclear ("red car" and a car in its own colours):
            bool (..., T) each.
        """
        nouns = np.stack([self._nouns_of(prompt) for prompt in prompts], axis=1)  # (nouns + 1, T)
        colour = np.array([_index(COLOUR_NAMES, prompt and prompt.colour) for prompt in prompts])
        pattern = np.array([_index(PATTERNS, prompt and prompt.pattern) for prompt in prompts])
        noun_fits = nouns[things[..., 0]]
        thing_colour, thing_pattern = things[..., 1, None], things[..., 2, None]
        colour_fits = (colour == NONE) | (colour == thing_colour)
        pattern_fits = (pattern == NONE) | (pattern == thing_pattern)
        unclear = noun_fits & (colour != NONE) & (thing_colour == NONE)
        return noun_fits & colour_fits & pattern_fits, unclear

    def _nouns_of(self, prompt: Prompt | None) -> np.ndarray:
        """bool (nouns + 1,): the nouns that a prompt finds; the last entry is for padding."""
        key = (prompt.concepts, prompt.shape) if prompt else (frozenset(), None)
        found = self._nouns.get(key)
        if found is None:
            found = np.zeros(self.concepts + len(SHAPES) + 1, bool)
            found[list(key[0])] = True
            if key[1] == "shape":
                found[self.concepts : -1] = True
            elif key[1] is not None:
                found[self.concepts + SHAPES.index(key[1])] = True
            self._nouns[key] = found
        return found


def _index(names: tuple[str, ...], name: str | None) -> int:
    return NONE if name is None else names.index(name)
