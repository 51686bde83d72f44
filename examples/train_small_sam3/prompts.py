"""What to ask of a scene: prompts that something in it answers, and prompts that nothing does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .concepts import Vocabulary, regular_plural
from .scenes import Scene, Thing
from .shapes import COLOUR_NAMES, HELD_OUT_COMBINATIONS, PATTERNS, SHAPES
from .unknown_words import TRAINING_WORDS, invented_word


@dataclass(frozen=True)
class Prompt:
    """Words and what they mean.

    Attributes:
        words: Colour and pattern before the noun, singular, lower case.
        concepts: The concepts that the noun finds; none for a shape or an unknown word.
        shape: The shape that the noun finds; "shape" for any.
        colour: If not None, only things of this colour.
        pattern: If not None, only things of this pattern.
    """

    words: str
    concepts: frozenset[int] = frozenset()
    shape: str | None = None
    colour: str | None = None
    pattern: str | None = None

    def finds(self, thing: Thing) -> bool:
        """Whether a thing is what the prompt asks for."""
        return self._noun_finds(thing) and self.colour in (None, thing.colour) and self.pattern in (None, thing.pattern)

    def is_unclear_about(self, thing: Thing) -> bool:
        """Whether only the maker of the icon could tell: "red car", and a car in its own colours."""
        return self._noun_finds(thing) and self.colour is not None and thing.colour is None

    def _noun_finds(self, thing: Thing) -> bool:
        if thing.concept is not None:
            return thing.concept in self.concepts
        return self.shape in ("shape", thing.shape)


@dataclass(frozen=True)
class PromptMaker:
    """Chooses prompts for scenes.

    Attributes:
        vocabulary: The concepts.
        concepts: Restrict prompts to these concepts.
        plain: Canonical names only: no synonyms, no broader words.
        held_out: Whether held-out combinations of colour and shape may be asked for.
        unknown: Words outside the vocabulary.
    """

    vocabulary: Vocabulary
    concepts: tuple[int, ...] | None = None
    plain: bool = False
    held_out: bool = False
    unknown: tuple[str, ...] = TRAINING_WORDS

    @cached_property
    def _askable(self) -> tuple[int, ...]:
        return self.concepts if self.concepts is not None else tuple(range(len(self.vocabulary)))

    def for_scene(
        self, scene: Scene, positives: int, negatives: int, rng: np.random.Generator
    ) -> tuple[list[Prompt], list[Prompt]]:
        """Return prompts that something in the scene answers, and prompts that nothing does.

        Where there are fewer things to ask for than `positives`, there are more negatives instead.
        """
        found: dict[str, Prompt] = {}
        candidates = [self._about(thing, rng) for thing in scene.things]
        candidates += [self._colour_of(thing) for thing in scene.things if rng.random() < 0.12]
        for i in rng.permutation(len(candidates)):
            prompt = candidates[i]
            if len(found) < positives and prompt is not None and self._is_fair(prompt, scene):
                found.setdefault(prompt.words, prompt)
        absent: dict[str, Prompt] = {}
        for _ in range(60):
            if len(found) + len(absent) == positives + negatives:
                break
            prompt = self.absent(scene, rng)
            if not any(map(prompt.finds, scene.things)) and self._is_fair(prompt, scene):
                absent.setdefault(prompt.words, prompt)
        return list(found.values()), list(absent.values())

    def for_training(self, scene: Scene, count: int, rng: np.random.Generator) -> list[Prompt]:
        """Return `count` prompts about a scene, up to half of them answered: those first.

        A thing is asked for in several ways: by two of its names, by a broader word, and plain shapes also by their
        bare colour or pattern. The splits of the evaluation use `for_scene`, whose draws stay as they are.
        """
        found: dict[str, Prompt] = {}
        candidates = [self._about(thing, rng) for thing in scene.things for _ in range(2)]
        candidates += [self._broader(thing, rng) for thing in scene.things if rng.random() < 0.3]
        candidates += [self._colour_of(thing) for thing in scene.things if rng.random() < 0.3]
        candidates += [self._pattern_of(thing) for thing in scene.things if rng.random() < 0.3]
        for i in rng.permutation(len(candidates)):
            prompt = candidates[i]
            if len(found) < count // 2 and prompt is not None and self._is_fair(prompt, scene):
                found.setdefault(prompt.words, prompt)
        chosen = dict(found)
        for _ in range(20 * count):
            if len(chosen) == count:
                break
            prompt = self._absent_colour(scene, rng) if rng.random() < 0.15 else self.absent(scene, rng)
            if not any(map(prompt.finds, scene.things)) and self._is_fair(prompt, scene):
                chosen.setdefault(prompt.words, prompt)
        while len(chosen) < count:
            word = invented_word(rng)
            chosen.setdefault(word, Prompt(word))
        return list(chosen.values())

    def names(self, rng: np.random.Generator, phrases: int = 60) -> list[Prompt]:
        """Return a prompt for each concept, by one of its names, for each shape, and some that paint them."""
        prompts = [self._named(concept, rng) for concept in range(len(self.vocabulary))]
        prompts += [self.of_shape(shape) for shape in SHAPES]
        paintable = self.vocabulary.paintable
        for _ in range(phrases):
            colour = _pick(COLOUR_NAMES, rng)
            if rng.random() < 0.5:
                shape = _pick(SHAPES, rng)
                if (colour, shape) not in HELD_OUT_COMBINATIONS:
                    prompts.append(self.of_shape(shape, colour=colour))
            else:
                prompts.append(self.of_concept(paintable[int(rng.integers(len(paintable)))], rng, colour=colour))
        return list({prompt.words: prompt for prompt in prompts}.values())

    def anything(self, rng: np.random.Generator) -> Prompt:
        """Return a prompt about any concept or shape."""
        if rng.random() < 0.7:
            return self.of_concept(self._askable[int(rng.integers(len(self._askable)))], rng)
        while True:
            prompt = self.of_shape(_pick(SHAPES, rng), colour=_pick(COLOUR_NAMES, rng) if rng.random() < 0.6 else None)
            if self._is_allowed(prompt):
                return prompt

    def absent(self, scene: Scene, rng: np.random.Generator) -> Prompt:
        """Return a prompt that is likely to find nothing, often by a little."""
        shapes = [t for t in scene.things if t.shape]
        icons = [t for t in scene.things if t.concept is not None]
        painted = [t for t in icons if t.colour]
        kind = rng.random()
        if shapes and kind < 0.3:
            return self._nearly(shapes[int(rng.integers(len(shapes)))], rng)
        if painted and kind < 0.45:
            thing = painted[int(rng.integers(len(painted)))]
            return self.of_concept(thing.concept, rng, colour=_pick(COLOUR_NAMES, rng))
        if kind < 0.52:
            return self.of_shape(_pick(SHAPES, rng), colour=_pick(COLOUR_NAMES, rng))
        if kind < 0.86:
            if icons and rng.random() < 0.45:
                group = self.vocabulary.concepts[icons[int(rng.integers(len(icons)))].concept].group
                near = [c for c in self.vocabulary.groups[group] if c in self._askable]
                if near:
                    return self.of_concept(near[int(rng.integers(len(near)))], rng)
            return self.of_concept(self._askable[int(rng.integers(len(self._askable)))], rng)
        word = invented_word(rng) if rng.random() < 0.25 and not self.plain else _pick(self.unknown, rng)
        return Prompt(word)

    def of_concept(self, concept: int, rng: np.random.Generator, colour: str | None = None) -> Prompt:
        """Return a prompt that names a concept, by one of its names."""
        row = self.vocabulary.concepts[concept]
        word, kind = row.name, rng.random()
        if not self.plain and colour is None:
            if kind < 0.3 and row.synonyms:
                word = _pick(row.synonyms, rng)
            elif kind > 0.93 and row.broader:
                word = _pick(row.broader, rng)
        words = f"{colour} {word}" if colour else word
        shape = word if word in SHAPES and colour is None else None
        return Prompt(words, concepts=self.vocabulary.by_word[word], shape=shape, colour=colour)

    def of_shape(self, shape: str = "shape", colour: str | None = None, pattern: str | None = None) -> Prompt:
        """Return a prompt that names a shape; "shape" is any."""
        words = " ".join(word for word in (pattern, colour, shape) if word)
        bare = colour is None and pattern is None  # "ring" finds jewellery too
        concepts = self.vocabulary.by_word.get(shape, frozenset()) if bare else frozenset()
        return Prompt(words, concepts=concepts, shape=shape, colour=colour, pattern=pattern)

    def _about(self, thing: Thing, rng: np.random.Generator) -> Prompt:
        if thing.concept is not None:
            colour = thing.colour if thing.colour and rng.random() < 0.6 else None
            return self.of_concept(thing.concept, rng, colour=colour)
        colour = thing.colour if rng.random() < 0.6 else None
        pattern = thing.pattern if rng.random() < 0.35 and thing.pattern != "solid" else None
        return self.of_shape(thing.shape, colour=colour, pattern=pattern)

    def _colour_of(self, thing: Thing) -> Prompt | None:
        return self.of_shape(colour=thing.colour) if thing.shape else None

    def _pattern_of(self, thing: Thing) -> Prompt | None:
        return self.of_shape(pattern=thing.pattern) if thing.pattern in PATTERNS[1:] else None

    def _broader(self, thing: Thing, rng: np.random.Generator) -> Prompt | None:
        row = self.vocabulary.concepts[thing.concept] if thing.concept is not None else None
        words = row.broader + row.more if row is not None else ()
        return self._by_word(_pick(words, rng)) if words else None

    def _named(self, concept: int, rng: np.random.Generator) -> Prompt:
        row = self.vocabulary.concepts[concept]
        return self._by_word(_pick(row.synonyms, rng) if row.synonyms and rng.random() < 0.35 else row.name)

    def _by_word(self, word: str) -> Prompt:
        return Prompt(word, concepts=self.vocabulary.by_word[word], shape=word if word in SHAPES else None)

    def _absent_colour(self, scene: Scene, rng: np.random.Generator) -> Prompt:
        """A bare colour or pattern, or the name of something in the scene in a colour that it does not have."""
        named = [t for t in scene.things if t.concept is not None and t.colour]
        if named and rng.random() < 0.5:
            concept = named[int(rng.integers(len(named)))].concept
            return self.of_concept(concept, rng, colour=_pick(COLOUR_NAMES, rng))
        if rng.random() < 0.3:
            return self.of_shape(pattern=_pick(PATTERNS[1:], rng))
        return self.of_shape(colour=_pick(COLOUR_NAMES, rng))

    def _nearly(self, thing: Thing, rng: np.random.Generator) -> Prompt:
        kind = rng.random()
        if kind < 0.4:
            return self.of_shape(thing.shape, colour=_pick(COLOUR_NAMES, rng))
        if kind < 0.8:
            return self.of_shape(_pick(SHAPES, rng), colour=thing.colour)
        if kind < 0.9:
            return self.of_shape(_pick(SHAPES, rng))
        return self.of_shape(thing.shape, colour=thing.colour, pattern=_pick(PATTERNS[1:], rng))

    def _is_fair(self, prompt: Prompt, scene: Scene) -> bool:
        return self._is_allowed(prompt) and not any(map(prompt.is_unclear_about, scene.things))

    def _is_allowed(self, prompt: Prompt) -> bool:
        """Whether it names no held-out combination: nothing that training draws fits one, so it would learn "never"."""
        return self.held_out or (prompt.colour, prompt.shape) not in HELD_OUT_COMBINATIONS


def phrase(prompt: Prompt, vocabulary: Vocabulary, rng: np.random.Generator) -> str:
    """Return the prompt as people type it: bare, with an article, in the plural, in capitals."""
    words, kind = prompt.words, rng.random()
    if kind < 0.62:
        return words
    if kind < 0.77:
        return f"{_pick(('a', 'the', 'an', 'all', 'every', 'my'), rng)} {words}"
    if kind < 0.94 and (prompt.concepts or prompt.shape):
        return _plural(prompt, vocabulary)
    return words.upper() if kind > 0.97 else words.title()


def _plural(prompt: Prompt, vocabulary: Vocabulary) -> str:
    attributes = [word for word in (prompt.pattern, prompt.colour) if word]
    noun = prompt.words.split(" ", len(attributes))[-1]
    plural = vocabulary.plural_of(noun) if prompt.concepts else regular_plural(noun)
    return " ".join([*attributes, plural])


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
