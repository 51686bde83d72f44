"""Batches: scenes, and what is asked of them in words and boxes.

The batch of a step is made from the run's seed and the step alone: a run that is cut and taken up sees the same. All
batches of a run have the same shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .batch import Batch, DrawnScenes
from .concepts import Vocabulary
from .icons import IconAtlas
from .meanings import NONE, Meanings
from .prompts import Prompt, PromptMaker, phrase
from .scenes import MOST_THINGS, TRAINING, Recipe, Scene, Thing, draw_scene
from .settings import Settings
from .shapes import SHAPES
from .tokenizer import VISUAL
from .views import look

MOST_BOXES = 3
MOST_TOKENS = 12
"""Of a text; the longest phrases that training asks for need as many."""
MOST_PAINTED = 60
"""Names of things with a colour among the names that every thing is compared with."""


@dataclass(frozen=True)
class _Scene:
    scene: Scene
    counts: np.ndarray
    """bool (things,): large enough to count."""


@dataclass(frozen=True)
class _Row:
    image: int
    text: str
    prompt: Prompt | None
    targets: tuple[int, ...]
    shown: tuple[tuple[int, bool], ...] = ()
    shown_on: int | None = None
    """The image that the boxes are on, if it is another one."""


class BatchMaker(torch.utils.data.Dataset):
    """The batches of a run, by step; with several processes each makes its share of the images."""

    def __init__(
        self, settings: Settings, vocabulary: Vocabulary, atlas: IconAtlas, tokenizer: Tokenizer,
        *, rank: int = 0, processes: int = 1,
    ) -> None:  # fmt: skip
        self.settings, self.vocabulary, self.atlas = settings, vocabulary, atlas
        self.count = settings.batch // processes
        self.first = rank * self.count
        self.recipe = replace(TRAINING, size=settings.image_size, finished=False)
        self.maker, self.meanings = PromptMaker(vocabulary), Meanings(vocabulary)
        self.encode = TextCache(tokenizer)

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        item, view = divmod(step, self.settings.views)
        return view_of(self.scenes(item), view, self.settings, step, self.first)

    def scenes(self, item: int) -> DrawnScenes:
        """Return the scenes that `settings.views` steps see, from step `item * settings.views` on."""
        scenes, alike = [], []
        for i in range(self.count):
            rng = np.random.default_rng([self.settings.seed, item, self.first + i])
            other = scenes[i - 1].scene if i % 2 and rng.random() < self.settings.elsewhere else None
            scene = self._scene(rng, other)
            scenes.append(_Scene(scene, _areas(scene) >= scene.smallest))
            alike += [i] if other is not None else []
        seed = [self.settings.seed, item, self.settings.batch + self.first]
        views = range(self.settings.views)
        asked = [
            self._ask(scenes, alike, self._asked(item * len(views) + v), np.random.default_rng([*seed, v]))
            for v in views
        ]
        images = np.stack([known.scene.image for known in scenes])
        ids, looks = np.stack([known.scene.ids for known in scenes]), self._attributes(scenes)
        return DrawnScenes(
            images=torch.from_numpy(images), ids=torch.from_numpy(ids), attributes=torch.from_numpy(looks),
            **{name: torch.stack([part[name] for part in asked]) for name in asked[0]},
        )  # fmt: skip

    def _asked(self, step: int) -> range:
        """Return which images are asked in a step: neighbours, and in each step the next ones."""
        count = self.settings.asked_of(self.count)
        first = step * count % self.count
        return range(first, first + count)

    def _ask(
        self, scenes: list[_Scene], alike: list[int], images: range, rng: np.random.Generator
    ) -> dict[str, Tensor]:  # fmt: skip
        """Ask something of some scenes; `alike` are those that show things of the same kinds as the one before."""
        rows = [row for i in images for row in self._rows(i, scenes[i], rng)]
        for i in alike:  # each of the two is asked for something that the other one shows
            for image, other in ((i - 1, i), (i, i - 1)):
                if image not in images:
                    continue
                row = _example_elsewhere(image, scenes[image], other, scenes[other], rng)
                last = (image - images.start + 1) * self.settings.prompts - 1
                rows[last] = row or rows[last]
        texts: dict[str, Prompt | None] = {VISUAL: None}
        texts |= {row.text: row.prompt for row in rows}
        for _ in range(self.settings.extra_texts):
            prompt = self.maker.anything(rng)
            texts.setdefault(phrase(prompt, self.vocabulary, rng), prompt)
        asked = list(texts.items())
        room = 1 + len(rows) + self.settings.extra_texts
        dense = min(room, self.settings.dense_texts)
        if len(asked) > dense:
            asked = [asked[i] for i in rng.permutation(len(asked))]
        asked += [(VISUAL, None)] * (room - len(asked))
        names: list[Prompt | None] = [*self.maker.names(rng, MOST_PAINTED)]
        names += [None] * (len(self.vocabulary) + len(SHAPES) + MOST_PAINTED - len(names))
        return self._tables(scenes, rows, asked[:dense], names, asked[dense:]) | {"asked": torch.tensor([*images])}

    def _scene(self, rng: np.random.Generator, alike: Scene | None) -> Scene:
        """Draw a scene, with things of the same concepts as another one."""
        concepts = {thing.concept for thing in alike.things if thing.concept is not None} if alike else None
        recipe = replace(self.recipe, concepts=tuple(sorted(concepts))) if concepts else self._recipe(rng)
        while True:
            scene = draw_scene(int(rng.integers(1 << 60)), recipe, self.vocabulary, self.atlas)
            if scene.things or rng.random() < 0.3:
                return scene

    def _recipe(self, rng: np.random.Generator) -> Recipe:
        painted, shapes = self.settings.painted_scenes, self.settings.shape_scenes
        if not painted + shapes:
            return self.recipe
        kind = rng.random()
        if kind < painted:
            concepts = self.vocabulary.paintable + self.vocabulary.of_any_colour  # the latter twice as often
            return replace(self.recipe, concepts=concepts, tinted=0.9, shapes=0.1)
        return replace(self.recipe, shapes=0.85) if kind < painted + shapes else self.recipe

    def _rows(self, image: int, known: _Scene, rng: np.random.Generator) -> list[_Row]:
        """Half of the prompts have answers; some of those are shown by boxes instead of said."""
        scene, rows = known.scene, []
        visible = tuple(np.nonzero(known.counts)[0].tolist())
        for prompt in self.maker.for_training(scene, self.settings.prompts, rng):
            targets = tuple(i for i, thing in enumerate(scene.things) if prompt.finds(thing))
            row = _Row(image, phrase(prompt, self.vocabulary, rng), prompt, targets)
            if any(known.counts[i] for i in targets) and rng.random() < self.settings.boxes:
                row = _show(row, scene.things, visible, rng)
            rows.append(row)
        return rows

    def _tables(
        self, scenes: list[_Scene], rows: list[_Row], dense: list[tuple[str, Prompt | None]],
        names: list[Prompt | None], rest: list[tuple[str, Prompt | None]],
    ) -> dict[str, Tensor]:  # fmt: skip
        said = [text for text, _ in dense]
        said += [name.words if name is not None else VISUAL for name in names]
        said += [text for text, _ in rest]
        ids, token_valid = self.encode(said)
        found, unclear = self.meanings.compare([*(prompt for _, prompt in dense), *names], self._meant(scenes))
        unclear[..., len(dense) + np.flatnonzero([name is None for name in names])] = True  # padding names nothing
        places = {text: len(dense) + len(names) + i for i, (text, _) in enumerate(rest)}
        places |= {text: i for i, (text, _) in enumerate(dense)}
        wanted = np.zeros((len(rows), MOST_THINGS), bool)
        shown_thing = np.zeros((len(rows), MOST_BOXES), np.int64)
        shown_labels, shown_valid = np.zeros((2, len(rows), MOST_BOXES), bool)
        for r, row in enumerate(rows):
            wanted[r, list(row.targets)] = True
            for k, (thing, positive) in enumerate(row.shown):
                shown_thing[r, k], shown_labels[r, k], shown_valid[r, k] = thing, positive, True
        return {
            "token_ids": ids, "token_valid": token_valid,
            "dense": torch.tensor([prompt is not None for _, prompt in dense]),
            "matches": torch.from_numpy(found), "unclear": torch.from_numpy(unclear),
            "row_image": torch.tensor([row.image for row in rows]),
            "row_text": torch.tensor([places[row.text] for row in rows]),
            "row_targets": torch.from_numpy(wanted),
            "shown_image": torch.tensor([row.image if row.shown_on is None else row.shown_on for row in rows]),
            "shown_thing": torch.from_numpy(shown_thing),
            "shown_labels": torch.from_numpy(shown_labels), "shown_valid": torch.from_numpy(shown_valid),
        }  # fmt: skip

    def _meant(self, scenes: list[_Scene]) -> np.ndarray:
        """Noun, colour and pattern of each thing, int64 (B, N + 1, 3); of the background and of padding, none."""
        meant = np.full((len(scenes), MOST_THINGS + 1, 3), NONE, np.int64)
        for b, known in enumerate(scenes):
            for i, thing in enumerate(known.scene.things, start=1):
                meant[b, i] = self.meanings.of_thing(thing)
        return meant

    def _attributes(self, scenes: list[_Scene]) -> np.ndarray:
        """int64 (B, N + 1, 4), see `Batch`."""
        noun, colour, pattern = np.moveaxis(self._meant(scenes), -1, 0)
        concepts = len(self.vocabulary)
        concept = np.where(noun == NONE, -1, np.minimum(noun, concepts))
        shape = np.where(noun == NONE, -1, np.maximum(noun - concepts, -1))
        concept[:, 0] = concepts + 1
        return np.stack([concept, shape, colour, pattern], axis=-1)


def view_of(scenes: DrawnScenes, view: int, settings: Settings, step: int, first: int = 0) -> Batch:
    """Return what a step sees of some scenes, on their device; `first` is the first image of this process."""
    seed = (settings.seed * 1_000_003 + step) * 4096 + first
    return look(scenes, view, seed=seed % (1 << 62), grid=settings.grid, clicked_things=settings.clicked_things)


def _areas(scene: Scene) -> np.ndarray:
    """Visible pixels of each thing."""
    return np.bincount(scene.ids.ravel(), minlength=len(scene.things) + 1)[1:]


def _show(row: _Row, things: tuple[Thing, ...], visible: tuple[int, ...], rng: np.random.Generator) -> _Row:
    """Turn a prompt into one with boxes: "this one and others like it", or "these, but not this"."""
    kinds: dict[tuple, list[int]] = {}
    for i in row.targets:
        if i in visible:
            kinds.setdefault(_kind(things[i]), []).append(i)
    if len(kinds) > 1 and rng.random() < 0.5:  # the words, less one kind of what they find
        banned = list(kinds)[int(rng.integers(len(kinds)))]
        example = kinds[banned][int(rng.integers(len(kinds[banned])))]
        rest = tuple(i for i in row.targets if _kind(things[i]) != banned)
        return _Row(row.image, row.text, row.prompt, rest, ((example, False),))
    kind = list(kinds)[int(rng.integers(len(kinds)))]
    alike = tuple(i for i, thing in enumerate(things) if _kind(thing) == kind)
    examples = rng.permutation(kinds[kind])[: 2 if rng.random() < 0.3 else 1]
    shown = [(int(i), True) for i in examples]
    others = [i for i in visible if i not in alike]
    if others and rng.random() < 0.35:
        shown.append((others[int(rng.integers(len(others)))], False))
    if rng.random() < 0.2 and set(alike) == set(row.targets):  # the words and an example
        return _Row(row.image, row.text, row.prompt, row.targets, tuple(shown))
    return _Row(row.image, VISUAL, None, alike, tuple(shown))


def _example_elsewhere(
    image: int, known: _Scene, other: int, shown: _Scene, rng: np.random.Generator
) -> _Row | None:  # fmt: skip
    """Ask an image for what a box on another one shows; None where that would be unclear."""
    visible = np.flatnonzero(shown.counts)
    if not len(visible):
        return None
    example = int(rng.choice(visible))
    targets = alike_elsewhere(shown.scene.things[example], known.scene.things)
    if targets is None:
        return None
    return _Row(image, VISUAL, None, targets, ((example, True),), other)


def alike_elsewhere(example: Thing, things: tuple[Thing, ...]) -> tuple[int, ...] | None:
    """Return which things are of the same kind as an example; None if it is unclear, as with a red car and a car.

    The things are those of another picture, where the same thing may be drawn in another style.
    """
    same_noun = [t for t in things if (t.concept, t.shape) == (example.concept, example.shape)]
    if any((t.colour is None) != (example.colour is None) for t in same_noun):
        return None
    return tuple(i for i, thing in enumerate(things) if _kind(thing) == _kind(example))


def _kind(thing: Thing) -> tuple:
    return thing.concept, thing.shape, thing.colour


def mask_box(mask: np.ndarray) -> np.ndarray:
    """bool (H, W) -> its box cxcywh, in pixels."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], np.float32)


class TextCache:
    """Token ids of texts; each text is tokenised once, as long as there is room."""

    def __init__(self, tokenizer: Tokenizer, room: int = 50_000) -> None:
        self._tokenizer, self._room = tokenizer, room
        self._ids: dict[str, list[int]] = {}

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Texts -> token ids, int64 (T, MOST_TOKENS), and which are not padding, bool (T, MOST_TOKENS)."""
        if len(self._ids) > self._room:
            self._ids.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            encodings = self._tokenizer.encode_batch(new)
            self._ids |= {text: _cut(encoding.ids) for text, encoding in zip(new, encodings, strict=True)}
        ids = [self._ids[text] for text in texts]
        lengths = np.array([len(tokens) for tokens in ids])
        valid = np.arange(MOST_TOKENS)[None] < lengths[:, None]
        padded = np.zeros(valid.shape, np.int64)
        padded[valid] = np.concatenate(ids)
        return torch.from_numpy(padded), torch.from_numpy(valid)


def _cut(ids: list[int]) -> list[int]:
    """Shorten a text that is too long; its end stays marked."""
    return ids if len(ids) <= MOST_TOKENS else [*ids[: MOST_TOKENS - 1], ids[-1]]
