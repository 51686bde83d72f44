"""Draw the small fixed set of scenes on which the seed checkpoint is tested, and measure it there with transformers.

python -m train_small_sam3.regression_set --out ../tests/data/scenes --checkpoint ../src/s3seg/checkpoints/embedded
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
from hotcoco import mask as coco

from .concepts import SEED_VOCABULARY, Vocabulary, load_vocabulary
from .icons import IconAtlas, load_atlas
from .metrics import compare, summarise
from .prompts import Prompt, PromptMaker
from .scenes import Recipe, Scene, draw_scene
from .unknown_words import TEST_WORDS

SEED = 20_261_123
SIZE = 224
SCENES_A_SPLIT = 20
THRESHOLD = 0.45
SEED_STYLES = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "emojione")
PLAIN = Recipe(size=SIZE, tinted=0.0, restyled=0.0, squashed=0.0)
SPLITS = {
    "shapes": replace(PLAIN, shapes=1.0),
    "seen styles": replace(PLAIN, shapes=0.0, styles=SEED_STYLES),
    "twemoji": replace(PLAIN, shapes=0.0, styles=("twemoji",)),
}


def seed_vocabulary() -> tuple[Vocabulary, tuple[int, ...]]:
    """Return our concepts under the names that the seed checkpoint has for them, and which of them it knows."""
    names = json.loads(SEED_VOCABULARY.read_text())["concepts"]
    known = [name for name in names if name != "ring"]  # the shape and the jewel: two meanings, one word
    ours = load_vocabulary()
    concepts = []
    for concept in ours.concepts:
        name = next((n for n in (concept.name, *concept.synonyms) if n in known), concept.name)
        concepts.append(replace(concept, name=name, synonyms=(), broader=()))
    return Vocabulary(tuple(concepts)), ours.restricted_to(set(known))


def draw_set(out: Path, cache: Path | None = None) -> dict:
    """Write the pictures, and return what is asked of each with the true masks."""
    vocabulary, known = seed_vocabulary()
    atlas = load_atlas(vocabulary, cache)
    maker = PromptMaker(vocabulary, concepts=known, plain=True, unknown=TEST_WORDS)
    out.mkdir(parents=True, exist_ok=True)
    scenes = []
    for split_index, (split, recipe) in enumerate(SPLITS.items()):
        recipe = replace(recipe, concepts=known)
        for i in range(SCENES_A_SPLIT):
            seed = SEED + 1000 * split_index + i
            scene, prompts = _scene_with_prompts(seed, recipe, vocabulary, atlas, maker)
            file = f"{split.replace(' ', '_')}_{i:02d}.webp"
            pixels = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(out / file), pixels, [cv2.IMWRITE_WEBP_QUALITY, 92])
            asked = [{"text": p.words, "masks": [_rle(m) for m in masks_of(p, scene)]} for p in prompts]
            scenes.append({"file": file, "split": split, "prompts": asked})
    return {"seed": SEED, "size": [SIZE, SIZE], "threshold": THRESHOLD, "scenes": scenes}


def masks_of(prompt: Prompt, scene: Scene) -> list[np.ndarray]:
    """Return the masks, bool (S, S), of the instances that a prompt should find."""
    masks = [scene.mask(i) for i, thing in enumerate(scene.things) if prompt.finds(thing)]
    return [mask for mask in masks if mask.sum() >= scene.smallest]


def transformers_figures(out: Path, truth: dict, checkpoint: Path) -> dict[str, dict]:
    """Measure a checkpoint on the set with the `Sam3Model` of transformers, in fp32."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Sam3Model

    model = Sam3Model.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    outcomes: dict[str, list] = {split: [] for split in SPLITS}
    for scene in truth["scenes"]:
        image = cv2.cvtColor(cv2.imread(str(out / scene["file"])), cv2.COLOR_BGR2RGB)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        for prompt in scene["prompts"]:
            ids = torch.tensor([tokenizer.encode(prompt["text"]).ids])
            with torch.inference_mode():
                said = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
            scores = said.pred_logits[0].sigmoid() * said.presence_logits[0].sigmoid()
            logits = said.pred_masks[:, scores > truth["threshold"]]
            masks = np.zeros((0, SIZE, SIZE), bool)
            if logits.shape[1]:
                full = torch.nn.functional.interpolate(logits, (SIZE, SIZE), mode="bilinear", align_corners=False)
                masks = (full[0] > 0).numpy()
            true = [coco.decode({**rle, "counts": rle["counts"].encode()}) > 0 for rle in prompt["masks"]]
            outcomes[scene["split"]].append(compare(masks, np.array(true, bool).reshape(-1, SIZE, SIZE)))
    return {split: _rounded(asdict(summarise(found))) for split, found in outcomes.items()}


def _scene_with_prompts(
    seed: int, recipe: Recipe, vocabulary: Vocabulary, atlas: IconAtlas, maker: PromptMaker
) -> tuple[Scene, list[Prompt]]:
    scene = draw_scene(seed, recipe, vocabulary, atlas)
    positive, negative = maker.for_scene(scene, 3, 3, np.random.default_rng(seed))
    return scene, [p for p in positive + negative if p.words != "ring"]


def _rle(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _rounded(figures: dict) -> dict:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}


def main() -> None:
    """Draw the set; with a checkpoint, measure it too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="folder of the seed checkpoint, to state its figures")
    args = parser.parse_args()
    truth = draw_set(args.out)
    if args.checkpoint:
        truth = {"transformers_figures": transformers_figures(args.out, truth, args.checkpoint), **truth}
    (args.out / "scenes.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
