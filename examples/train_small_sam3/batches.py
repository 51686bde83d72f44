"""Batches: scenes, what is asked of them in words and boxes, and everything the losses compare with.

The batch of a step is made from the run's seed and the step alone: a run that is cut and taken up sees the same. All
batches of a run have the same shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .concepts import Vocabulary
from .icons import IconAtlas
from .meanings import NONE, Meanings
from .prompts import Prompt, PromptMaker, phrase
from .scenes import MOST_THINGS, TRAINING, Scene, Thing, draw_scene
from .settings import Settings
from .shapes import SHAPES
from .tokenizer import VISUAL

MOST_BOXES = 3
MOST_TOKENS = 12
"""Of a text; the longest phrases that training asks for need as many."""
MOST_PAINTED = 60
"""Names of things with a colour among the names that every thing is compared with."""
BACKGROUND, UNCLEAR = 0, -1
"""Labels of patches: no thing, or a bit of one; otherwise 1 + the index of the thing."""


@dataclass(frozen=True)
class Batch:
    """B images of at most N things, T texts, and R rows: a row is one image with one prompt.

    The T texts are D that the dense losses compare with all patches, then K names of every concept and shape, with
    which the naming loss compares whole things, then the rest of what the rows ask.
    """

    images: Tensor  # uint8 (B, 3, S, S)
    patch_labels: Tensor  # int64 (B, G, G): which thing a patch shows
    attributes: Tensor  # int64 (B, N + 1, 4): concept, shape, colour, pattern; -1 unknown; row 0 is the background
    boxes: Tensor  # fp32 (B, N, 4), cxcywh, 0..1
    masks: Tensor  # uint8 (B, N, 4 G, 4 G): coverage, 0..255
    valid: Tensor  # bool (B, N): large enough to count
    token_ids: Tensor  # int64 (T, MOST_TOKENS)
    token_valid: Tensor  # bool (T, MOST_TOKENS)
    dense: Tensor  # bool (D,): False for "visual", which names nothing
    matches: Tensor  # bool (B, N + 1, D + K): which things a text finds; row 0 is the background
    unclear: Tensor  # bool (B, N + 1, D + K): whether it finds them is unknown: "red car", a car in its own colours
    row_image: Tensor  # int64 (R,)
    row_text: Tensor  # int64 (R,)
    row_targets: Tensor  # bool (R, N)
    shown_boxes: Tensor  # fp32 (R, MOST_BOXES, 4)
    shown_image: Tensor  # int64 (R,): the image that the boxes are on; mostly the row's own
    shown_labels: Tensor  # bool (R, MOST_BOXES)
    shown_valid: Tensor  # bool (R, MOST_BOXES)
    click_thing: Tensor  # int64 (B,): one of the valid things, for the click head
    click_point: Tensor  # fp32 (B, 2): x and y of a point on it, 0..1

    @property
    def texts(self) -> int:
        """D, the number of texts of the dense losses."""
        return len(self.dense)

    @property
    def names(self) -> int:
        """K, the number of names."""
        return self.matches.shape[-1] - self.texts

    @property
    def targets_by_image(self) -> Tensor:
        """bool (B, P, N): the rows of an image follow each other, and all images have P of them."""
        return self.row_targets.unflatten(0, (len(self.images), -1))

    def trimmed(self) -> Batch:
        """Return the batch without the columns of tokens that are padding of all texts; waits for the device."""
        longest = int(self.token_valid.any(0).sum())
        return replace(self, token_ids=self.token_ids[:, :longest], token_valid=self.token_valid[:, :longest])


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
        self.recipe = replace(TRAINING, size=settings.image_size)
        self.maker, self.meanings = PromptMaker(vocabulary), Meanings(vocabulary)
        self.encode = TextCache(tokenizer)

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        scenes, rows = [], []
        for i in range(self.count):
            rng = np.random.default_rng([self.settings.seed, step, self.first + i])
            alike = scenes[i - 1].scene if i % 2 and rng.random() < self.settings.elsewhere else None
            scene = self._scene(rng, alike)
            scenes.append(_Scene(scene, _areas(scene) >= scene.smallest))
            rows += self._rows(i, scenes[-1], rng)
            if alike is not None:  # each of the two is asked for something that the other one shows
                for image, other in ((i - 1, i), (i, i - 1)):
                    row = _example_elsewhere(image, scenes[image], other, scenes[other], rng)
                    last = (image + 1) * self.settings.prompts - 1
                    rows[last] = row or rows[last]
        rng = np.random.default_rng([self.settings.seed, step, self.settings.batch + self.first])
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
        return self._assemble(scenes, rows, asked[:dense], names, asked[dense:], rng)

    def _scene(self, rng: np.random.Generator, alike: Scene | None) -> Scene:
        """Draw a scene, with things of the same concepts as another one."""
        concepts = {thing.concept for thing in alike.things if thing.concept is not None} if alike else None
        recipe = replace(self.recipe, concepts=tuple(sorted(concepts))) if concepts else self.recipe
        while True:
            scene = draw_scene(int(rng.integers(1 << 60)), recipe, self.vocabulary, self.atlas)
            if scene.things or rng.random() < 0.3:
                return scene

    def _rows(self, image: int, known: _Scene, rng: np.random.Generator) -> list[_Row]:
        """Half of the prompts have answers; some of those are shown by boxes instead of said."""
        scene, rows = known.scene, []
        visible = tuple(np.nonzero(known.counts)[0].tolist())
        for prompt in self.maker.for_training(scene, self.settings.prompts, rng):
            targets = tuple(i for i in visible if prompt.finds(scene.things[i]))
            row = _Row(image, phrase(prompt, self.vocabulary, rng), prompt, targets)
            if targets and rng.random() < self.settings.boxes:
                row = _show(row, scene.things, visible, rng)
            rows.append(row)
        return rows

    def _assemble(
        self, scenes: list[_Scene], rows: list[_Row], dense: list[tuple[str, Prompt | None]],
        names: list[Prompt | None], rest: list[tuple[str, Prompt | None]], rng: np.random.Generator,
    ) -> Batch:  # fmt: skip
        targets = [self._scene_targets(known) for known in scenes]
        labels, attributes, boxes, masks, valid, meant = (np.stack(part) for part in zip(*targets, strict=True))
        said = [text for text, _ in dense]
        said += [name.words if name is not None else VISUAL for name in names]
        said += [text for text, _ in rest]
        ids, token_valid = self.encode(said)
        found, unclear = self.meanings.compare([*(prompt for _, prompt in dense), *names], meant)
        unclear[:, 1:] |= found[:, 1:] & ~valid[..., None]
        found[:, 1:] &= valid[..., None]
        unclear[..., len(dense) + np.flatnonzero([name is None for name in names])] = True  # padding names nothing
        places = {text: len(dense) + len(names) + i for i, (text, _) in enumerate(rest)}
        places |= {text: i for i, (text, _) in enumerate(dense)}
        wanted = np.zeros((len(rows), MOST_THINGS), bool)
        shown_boxes = np.full((len(rows), MOST_BOXES, 4), 0.5, np.float32)
        shown_labels, shown_valid = np.zeros((2, len(rows), MOST_BOXES), bool)
        for r, row in enumerate(rows):
            wanted[r, list(row.targets)] = True
            for k, (thing, positive) in enumerate(row.shown):
                on = row.image if row.shown_on is None else row.shown_on
                shown_boxes[r, k] = _drawn_by_hand(boxes[on, thing], rng)
                shown_labels[r, k], shown_valid[r, k] = positive, True
        things, points = zip(*(_click(m, v, rng) for m, v in zip(masks, valid, strict=True)), strict=True)
        return Batch(
            images=torch.from_numpy(np.stack([known.scene.image for known in scenes])).permute(0, 3, 1, 2).contiguous(),
            patch_labels=torch.from_numpy(labels), attributes=torch.from_numpy(attributes),
            boxes=torch.from_numpy(boxes), masks=torch.from_numpy(masks), valid=torch.from_numpy(valid),
            token_ids=ids, token_valid=token_valid, dense=torch.tensor([prompt is not None for _, prompt in dense]),
            matches=torch.from_numpy(found), unclear=torch.from_numpy(unclear),
            row_image=torch.tensor([row.image for row in rows]),
            row_text=torch.tensor([places[row.text] for row in rows]),
            row_targets=torch.from_numpy(wanted), shown_boxes=torch.from_numpy(shown_boxes),
            shown_image=torch.tensor([row.image if row.shown_on is None else row.shown_on for row in rows]),
            shown_labels=torch.from_numpy(shown_labels), shown_valid=torch.from_numpy(shown_valid),
            click_thing=torch.tensor(things), click_point=torch.tensor(points, dtype=torch.float32),
        )  # fmt: skip

    def _scene_targets(self, known: _Scene) -> tuple[np.ndarray, ...]:
        scene, size = known.scene, self.settings.image_size
        grid, fine = self.settings.grid, 4 * self.settings.grid
        attributes = np.full((MOST_THINGS + 1, 4), -1, np.int64)
        attributes[0, 0] = len(self.vocabulary) + 1
        boxes, valid = np.zeros((MOST_THINGS, 4), np.float32), np.zeros(MOST_THINGS, bool)
        masks = np.zeros((MOST_THINGS, fine, fine), np.uint8)
        meant = np.full((MOST_THINGS + 1, 3), NONE, np.int64)
        for i, thing in enumerate(scene.things):
            meant[i + 1] = noun, colour, pattern = self.meanings.of_thing(thing)
            concept, shape = min(noun, len(self.vocabulary)), max(-1, noun - len(self.vocabulary))
            attributes[i + 1] = concept, shape, colour, pattern
            if known.counts[i]:
                mask, valid[i] = scene.mask(i), True
                boxes[i] = mask_box(mask) / size
                masks[i] = cv2.resize(mask.view(np.uint8) * 255, (fine, fine), interpolation=cv2.INTER_AREA)
        return patch_labels(scene, grid), attributes, boxes, masks, valid, meant


def _areas(scene: Scene) -> np.ndarray:
    """Visible pixels of each thing."""
    return np.bincount(scene.ids.ravel(), minlength=len(scene.things) + 1)[1:]


def _show(row: _Row, things: tuple[Thing, ...], visible: tuple[int, ...], rng: np.random.Generator) -> _Row:
    """Turn a prompt into one with boxes: "this one and others like it", or "these, but not this"."""
    kinds: dict[tuple, list[int]] = {}
    for i in row.targets:
        kinds.setdefault(_kind(things[i]), []).append(i)
    if len(kinds) > 1 and rng.random() < 0.5:  # the words, less one kind of what they find
        banned = list(kinds)[int(rng.integers(len(kinds)))]
        example = kinds[banned][int(rng.integers(len(kinds[banned])))]
        rest = tuple(i for i in row.targets if _kind(things[i]) != banned)
        return _Row(row.image, row.text, row.prompt, rest, ((example, False),))
    kind = list(kinds)[int(rng.integers(len(kinds)))]
    alike = tuple(i for i in visible if _kind(things[i]) == kind)
    examples = rng.permutation(alike)[: 2 if rng.random() < 0.3 else 1]
    shown = [(int(i), True) for i in examples]
    others = [i for i in visible if i not in alike]
    if others and rng.random() < 0.35:
        shown.append((others[int(rng.integers(len(others)))], False))
    if rng.random() < 0.2 and set(alike) == set(row.targets):  # the words and an example
        return _Row(row.image, row.text, row.prompt, row.targets, tuple(shown))
    return _Row(row.image, VISUAL, None, alike, tuple(shown))


def _click(masks: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> tuple[int, tuple[float, float]]:
    """Choose one of the valid things, and a point on it (x, y) in 0..1: mostly well inside, as people click."""
    if not valid.any():
        return 0, (0.5, 0.5)
    thing = int(rng.choice(np.flatnonzero(valid)))
    mask = masks[thing]  # uint8 (H, W)
    inside = np.pad((mask > 127).astype(np.uint8), 1)  # the border of the picture is an edge too
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    deep = np.argwhere(depth >= depth.max() * rng.uniform(0, 1)) if depth.any() else np.argwhere(mask == mask.max())
    y, x = deep[rng.integers(len(deep))]
    height, width = mask.shape
    return thing, ((x + 0.5) / width, (y + 0.5) / height)


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
    return _Row(image, VISUAL, None, tuple(i for i in targets if known.counts[i]), ((example, True),), other)


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


def _drawn_by_hand(box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the edges of a box (cxcywh) by a few percent of its size."""
    extent = np.tile(box[2:], 2)
    return np.clip(box + rng.normal(0, 0.04, 4) * extent, 0.01, 0.99).astype(np.float32)


def mask_box(mask: np.ndarray) -> np.ndarray:
    """bool (H, W) -> its box cxcywh, in pixels."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], np.float32)


def patch_labels(scene: Scene, grid: int) -> np.ndarray:
    """Return which thing each patch shows: int64 (grid, grid), `BACKGROUND`, `UNCLEAR`, or 1 + its index."""
    kinds, patch = len(scene.things) + 1, len(scene.ids) // grid
    if kinds == 1:
        return np.full((grid, grid), BACKGROUND, np.int64)
    patches = np.arange(grid * grid).reshape(grid, grid).repeat(patch, 0).repeat(patch, 1)
    counts = np.bincount((patches * kinds + scene.ids).ravel(), minlength=grid * grid * kinds)
    cover = counts.reshape(grid, grid, kinds) / patch**2
    things = np.where(cover[..., 1:].max(-1) > 0.4, cover[..., 1:].argmax(-1) + 1, UNCLEAR)
    return np.where(cover[..., 0] > 0.9, BACKGROUND, things).astype(np.int64)


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


def normalise(images: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) -> fp32, -1..1."""
    return images.float() / 127.5 - 1
