"""The things the checkpoint learns to find: their names, other words for them, and the icons that draw them."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TABLE = Path(__file__).with_name("concepts.tsv")
EXAMINED = 468
"""The first concepts of the table, which the tests ask about; those that came later are only trained on."""


@dataclass(frozen=True, slots=True)
class Concept:
    """One row of `concepts.tsv`."""

    name: str
    plural: str
    group: str
    synonyms: tuple[str, ...]
    broader: tuple[str, ...]
    """Words that find this concept and others: "fruit" finds apples and pears."""
    tint: bool
    """Whether it makes sense in any colour: a car does, a banana does not. The tests of colours use these."""
    paintable: bool
    """Whether training may paint it: all that `tint` allows, and things that are odd in some colours."""
    icons: tuple[str, ...]
    """The emoji that draw it, by the names of the emoji sets."""
    more: tuple[str, ...]
    """Further words that find it, and others, which only training uses: the tests' questions stay as they were."""


@dataclass(frozen=True)
class Vocabulary:
    """All concepts, and the words that find them. A concept is known by its index."""

    concepts: tuple[Concept, ...]

    def __len__(self) -> int:
        return len(self.concepts)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of the concepts."""
        return tuple(concept.name for concept in self.concepts)

    @cached_property
    def paintable(self) -> tuple[int, ...]:
        """Return the concepts that training paints."""
        return tuple(i for i, concept in enumerate(self.concepts) if concept.paintable)

    @cached_property
    def of_any_colour(self) -> tuple[int, ...]:
        """Return the concepts that are natural in any colour."""
        return tuple(i for i, concept in enumerate(self.concepts) if concept.tint)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Indices of the concepts of each group, where hard negatives come from."""
        found = defaultdict(list)
        for index, concept in enumerate(self.concepts):
            found[concept.group].append(index)
        return {group: tuple(members) for group, members in found.items()}

    @cached_property
    def by_word(self) -> dict[str, frozenset[int]]:
        """Each singular word -> the concepts that it finds."""
        found = defaultdict(set)
        for index, concept in enumerate(self.concepts):
            for word in (concept.name, *concept.synonyms, *concept.broader, *concept.more):
                found[word].add(index)
        return {word: frozenset(indices) for word, indices in found.items()}

    def plural_of(self, word: str) -> str:
        """Return the plural of a word of this vocabulary."""
        for concept in self.concepts:
            if concept.name == word:
                return concept.plural
        return regular_plural(word)


def regular_plural(word: str) -> str:
    """Return the plural by the rules of spelling: box -> boxes, berry -> berries, cat -> cats."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def load_vocabulary(table: Path = TABLE) -> Vocabulary:
    """Read the table of concepts."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return Vocabulary(tuple(_concept(row) for row in rows))


def _concept(row: dict[str, str]) -> Concept:
    return Concept(
        name=row["name"],
        plural=row["plural"] or regular_plural(row["name"]),
        group=row["group"],
        synonyms=_split(row["synonyms"]),
        broader=_split(row["broader"]),
        tint=row["tint"] == "yes",
        paintable=bool(row["tint"]),
        icons=_split(row["icons"]),
        more=_split(row["more"]),
    )


def _split(cell: str) -> tuple[str, ...]:
    return tuple(word for word in cell.split(",") if word)
