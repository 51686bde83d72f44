"""Measure how well a checkpoint finds on one picture what was shown on others: by examples, by a word, and by both.

    python -m train_small_sam3.evaluate_concepts CHECKPOINT --concepts 100

Pictures are drawn in a style that training never saw. For each concept, examples are boxes around one thing on up to
four pictures; the question is put to other pictures, half of which show the concept.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from s3seg.sam3.model import ImageFeatures
from s3seg.sam3.predictor import BoxPrompt, Predictor, Query

from .batches import mask_box
from .concepts import EXAMINED, Vocabulary, load_vocabulary
from .evaluate import Answer, masks_of, table
from .icons import IconAtlas, load_atlas
from .metrics import mask_iou, summarise
from .scenes import Recipe, Scene, draw_scene
from .splits import FIRST_SEED
from .tokenizer import VISUAL

EXAMPLES = 4
PRESENT, ABSENT = 2, 2
"""Pictures of each concept that the question is put to: with it, and without it."""
WAYS = {
    "the word": (True, 0),
    "1 example": (False, 1),
    "2 examples": (False, 2),
    "4 examples": (False, 4),
    "the word and 1 example": (True, 1),
    "the word and 4 examples": (True, 4),
}
"""Whether the word is used, and how many examples."""


def scenes_of(
    concept: int, *, present: bool, recipe: Recipe, vocabulary: Vocabulary, atlas: IconAtlas
) -> Iterator[Scene]:
    """Yield scenes of several kinds of things, with or without a concept."""
    rng = np.random.default_rng([FIRST_SEED, concept, present])
    others = [c for c in range(EXAMINED) if c != concept and atlas.styles_of(c, recipe.styles)]
    while True:
        chosen = tuple(int(c) for c in rng.choice(others, 5, replace=False))
        wanted = (concept, *chosen) if present else chosen
        scene = draw_scene(int(rng.integers(1 << 40)), replace(recipe, concepts=wanted), vocabulary, atlas)
        visible = {t.concept for i, t in enumerate(scene.things) if scene.mask(i).sum() >= scene.smallest}
        if len(visible) > 1 and (concept in visible) == present:
            yield scene


def masks_in(scene: Scene, concept: int) -> np.ndarray:
    """Return the masks of a concept that are large enough to count, bool (M, S, S)."""
    found = [scene.mask(i) for i, t in enumerate(scene.things) if t.concept == concept]
    kept = [mask for mask in found if mask.sum() >= scene.smallest]
    return np.array(kept, bool).reshape(-1, *scene.ids.shape)


def examples_of(predictor: Predictor, scene: Scene, concept: int) -> np.ndarray:
    """Return the tokens of a box around the largest thing of a concept."""
    (features,) = predictor.encode_images([scene.image])
    largest = max(masks_in(scene, concept), key=lambda mask: mask.sum())
    box = tuple(float(v) for v in mask_box(largest) / len(scene.ids))
    return predictor.encode_examples(features, [BoxPrompt(box, positive=True)])  # type: ignore[arg-type]


def ask(
    predictor: Predictor, features: ImageFeatures, scene: Scene, concept: int, words: str, shown: list[np.ndarray]
) -> dict[str, Answer]:
    """Put the question about one picture in each of the ways."""
    queries = {
        way: Query(words if with_word else VISUAL, examples=np.concatenate(shown[:count]) if count else None)
        for way, (with_word, count) in WAYS.items()
    }
    answers = {}
    truth = masks_in(scene, concept)
    for (way, _), found in zip(
        queries.items(), predictor.predict(features, list(queries.values()), threshold=0.1), strict=True
    ):
        iou = mask_iou(masks_of(found, scene.image.shape[:2]), truth)
        answers[way] = Answer(way, words, found.scores, iou)
    return answers


def evaluate(checkpoint: Path, *, concepts: int, style: str, example_style: str, threshold: float) -> dict:
    """Examine a checkpoint, and print the figures of each way."""
    predictor = Predictor.from_path(checkpoint, device="cpu", dtype="float32")
    vocabulary = load_vocabulary()
    atlas = load_atlas(vocabulary)
    size = predictor.model.config.vision.image_size
    base = Recipe(size=size, shapes=0.0, restyled=0.0, squashed=0.0, tinted=0.0, most=5)
    asked, shown_in = replace(base, styles=(style,)), replace(base, styles=(example_style,))
    drawn = [c for c in range(EXAMINED) if atlas.styles_of(c, (style,)) and atlas.styles_of(c, (example_style,))]
    chosen = np.random.default_rng(FIRST_SEED).choice(drawn, min(concepts, len(drawn)), replace=False)
    answers: dict[str, list[Answer]] = defaultdict(list)
    for concept in map(int, chosen):
        words = vocabulary.concepts[concept].name
        with_it = scenes_of(concept, present=True, recipe=shown_in, vocabulary=vocabulary, atlas=atlas)
        shown = [examples_of(predictor, next(with_it), concept) for _ in range(EXAMPLES)]
        for present, count in ((True, PRESENT), (False, ABSENT)):
            scenes = scenes_of(concept, present=present, recipe=asked, vocabulary=vocabulary, atlas=atlas)
            for scene in islice(scenes, EXAMPLES, EXAMPLES + count):  # in the same style the first have the examples
                (features,) = predictor.encode_images([scene.image])
                for way, answer in ask(predictor, features, scene, concept, words, shown).items():
                    answers[way].append(answer)
    figures = {way: summarise(a.at(threshold) for a in found) for way, found in answers.items()}
    print(table(figures))
    return {way: asdict(f) for way, f in figures.items()}


def main() -> None:
    """Examine a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, help="file for the figures")
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--style", default="twemoji", help="of the pictures that the question is put to")
    parser.add_argument("--example-style", help="of the pictures with examples; by default the same")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = evaluate(
        args.checkpoint,
        concepts=args.concepts,
        style=args.style,
        example_style=args.example_style or args.style,
        threshold=args.threshold,
    )
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
