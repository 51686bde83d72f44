"""What a checkpoint is examined on: fixed scenes and questions that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from s3seg.sam3.predictor import BoxPrompt, Query

from .backgrounds import TEST_PHOTOGRAPHS, photograph
from .batches import alike_elsewhere, mask_box
from .concepts import EXAMINED, Vocabulary
from .icons import IconAtlas
from .prompts import Prompt, PromptMaker
from .scenes import Recipe, Scene, draw_scene
from .shapes import HELD_OUT_COMBINATIONS
from .tokenizer import VISUAL
from .unknown_words import TEST_WORDS

FIRST_SEED = 7_000_000_000
"""Far from what training draws: its seeds are 60 random bits, these are consecutive numbers."""
CLICKS = {"one click": 1, "three clicks": 3}
"""Splits in which things are clicked, and how often; only a checkpoint with a click head can be asked."""
SECOND_SEED = 500_000
"""Between the seeds of two scenes that belong together."""
_ASKED = tuple(range(EXAMINED))
QUESTIONS = 3
"""Prompts of each scene that something answers, and as many that nothing does."""


@dataclass(frozen=True)
class Question:
    """One query about one image, and the masks that it should get."""

    split: str
    image: np.ndarray
    query: Query
    masks: np.ndarray
    """bool (M, S, S)"""
    example: tuple[np.ndarray, BoxPrompt] | None = None
    """Another image and a box on it, which shows what the query asks for."""
    clicks: int = 0
    """If not 0, the only mask is clicked as often, and nothing is asked in words."""
    about: str = ""
    """The concept or shape that is asked for, for the table by concept."""


@dataclass(frozen=True)
class Examiner:
    """Draws the scenes of each split and asks about them."""

    vocabulary: Vocabulary
    atlas: IconAtlas
    size: int

    def questions(self, split: str, scenes: int, first: int = 0) -> Iterator[Question]:
        """Yield the questions about some scenes of a split, from number `first` on; photographs come all at once."""
        if split == "photographs":
            yield from self._photographs()
            return
        base = Recipe(size=self.size, restyled=0.0, squashed=0.0, concepts=_ASKED)
        recipe = RECIPES[split](base, self.vocabulary)
        maker = PromptMaker(self.vocabulary, concepts=_ASKED, held_out=True, unknown=TEST_WORDS)
        for i in range(first, first + scenes):
            seed = FIRST_SEED + 1_000_000 * list(RECIPES).index(split) + i
            scene, rng = draw_scene(seed, recipe, self.vocabulary, self.atlas), np.random.default_rng(seed)
            if split in CLICKS:
                for thing in rng.permutation(len(scene.things))[:QUESTIONS]:
                    masks = self._masks(scene, [int(thing)])
                    if len(masks):
                        yield Question(split, scene.image, Query(""), masks, clicks=CLICKS[split])
            elif split == "examples elsewhere":
                yield from self._by_example_elsewhere(scene, seed, recipe, rng)
            else:
                yield from self._about(split, scene, maker, rng)

    def _about(self, split: str, scene: Scene, maker: PromptMaker, rng: np.random.Generator) -> Iterator[Question]:
        if split == "unknown words":
            for word in rng.choice(TEST_WORDS, 2 * QUESTIONS, replace=False):
                yield self._question(split, scene, Prompt(str(word)))
        elif split == "examples":
            yield from self._by_example(split, scene, rng)
        elif split == "held-out combinations":
            pairs = {(t.colour, t.shape) for t in scene.things} & HELD_OUT_COMBINATIONS
            for colour, shape in sorted(pairs):
                yield self._question(split, scene, maker.of_shape(shape, colour=colour))
        else:
            found, absent = maker.for_scene(scene, QUESTIONS, QUESTIONS, rng)
            for prompt in found + absent:
                if split != "colour and thing" or (prompt.colour and prompt.concepts):
                    yield self._question(split, scene, prompt)

    def _question(self, split: str, scene: Scene, prompt: Prompt) -> Question:
        wanted = [i for i, thing in enumerate(scene.things) if prompt.finds(thing)]
        names = [self.vocabulary.concepts[c].name for c in prompt.concepts] if len(prompt.concepts) == 1 else []
        about = names[0] if names else prompt.shape or prompt.words
        return Question(split, scene.image, Query(prompt.words), self._masks(scene, wanted), about=about)

    def _by_example(self, split: str, scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
        """A box around one thing of which there are several; the answer is all of its kind."""
        kinds: dict[tuple, list[int]] = {}
        for i, thing in enumerate(scene.things):
            if scene.mask(i).sum() >= scene.smallest:
                kinds.setdefault((thing.concept, thing.shape, thing.colour), []).append(i)
        for alike in kinds.values():
            if len(alike) > 1:
                box = mask_box(scene.mask(int(rng.choice(alike)))) / self.size
                query = Query(VISUAL, (BoxPrompt(tuple(float(v) for v in box), positive=True),))
                yield Question(split, scene.image, query, self._masks(scene, alike))

    def _by_example_elsewhere(
        self, shown: Scene, seed: int, recipe: Recipe, rng: np.random.Generator
    ) -> Iterator[Question]:
        """A box around a thing of one scene; the answer is all of its kind in another scene, or nothing."""
        concepts = sorted({thing.concept for thing in shown.things if thing.concept is not None})
        recipe = replace(recipe, concepts=tuple(concepts)) if concepts else recipe
        scene = draw_scene(seed + SECOND_SEED, recipe, self.vocabulary, self.atlas)
        asked = set()
        for i in rng.permutation(len(shown.things)):
            thing, mask = shown.things[i], shown.mask(int(i))
            alike = alike_elsewhere(thing, scene.things)
            kind = (thing.concept, thing.shape, thing.colour)
            if alike is None or kind in asked or mask.sum() < shown.smallest:
                continue
            asked.add(kind)
            box = BoxPrompt(tuple(float(v) for v in mask_box(mask) / self.size), positive=True)
            masks = self._masks(scene, list(alike))
            yield Question("examples elsewhere", scene.image, Query(VISUAL), masks, (shown.image, box))

    def _photographs(self, prompts: int = 60) -> Iterator[Question]:
        """Photographs, whole and in quarters, each with many prompts of the vocabulary: nothing is to be found."""
        rng = np.random.default_rng(FIRST_SEED)
        maker = PromptMaker(self.vocabulary, concepts=_ASKED, held_out=True)
        nothing = np.zeros((0, self.size, self.size), bool)
        for name in TEST_PHOTOGRAPHS:
            picture = photograph(name)
            half_height, half_width = picture.shape[0] // 2, picture.shape[1] // 2
            views = [picture, picture[:half_height, :half_width], picture[half_height:, half_width:]]
            for view in views:
                image = cv2.resize(view, (self.size, self.size), interpolation=cv2.INTER_AREA)
                for _ in range(prompts // len(views)):
                    yield Question("photographs", image, Query(maker.anything(rng).words), nothing)

    def _masks(self, scene: Scene, things: list[int]) -> np.ndarray:
        masks = [scene.mask(i) for i in things if scene.mask(i).sum() >= scene.smallest]
        return np.array(masks, bool).reshape(-1, self.size, self.size)


RECIPES = {
    "validation": lambda base, _: replace(base, shapes=0.35),
    "shapes and colours": lambda base, _: replace(base, shapes=1.0),
    "held-out combinations": lambda base, _: replace(base, shapes=1.0, held_out="always"),
    "seen styles": lambda base, _: replace(base, shapes=0.0),
    "twemoji (held out)": lambda base, _: replace(base, shapes=0.0, styles=("twemoji",)),
    "openmoji (held out)": lambda base, _: replace(base, shapes=0.0, styles=("openmoji",)),
    "colour and thing": lambda base, v: replace(base, shapes=0.0, tinted=1.0, concepts=v.of_any_colour),
    "unknown words": lambda base, _: replace(base, shapes=0.35),
    "examples": lambda base, _: replace(base, shapes=0.35),
    "photographed drawings": lambda base, _: replace(base, shapes=0.35, photographed=1.0),
    "examples elsewhere": lambda base, _: replace(base, shapes=0.35),
    "one click": lambda base, _: replace(base, shapes=0.35),
    "three clicks": lambda base, _: replace(base, shapes=0.35),
}
SPLITS = (*RECIPES, "photographs")
