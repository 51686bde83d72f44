"""Draw the small fixed set of scenes that the embedded checkpoint is tested on, and measure it with transformers.

python -m train_small_sam3.regression_set --out ../tests/data/scenes --checkpoint ../src/s3seg/checkpoints/embedded
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from hotcoco import mask as coco

from s3seg.sam3.predictor import BoxPrompt, Predictor, Query

from .concepts import load_vocabulary
from .evaluate import masks_of
from .icons import load_atlas
from .metrics import compare, summarise
from .splits import Examiner, Question

if TYPE_CHECKING:
    from transformers import Sam3Model

SIZE = 320
SCENES = {"shapes and colours": 20, "seen styles": 20, "twemoji (held out)": 20, "examples": 20}
"""Scenes of each split, the first ones of the whole examination; without drawings under a share-alike licence."""


def draw_set(out: Path, cache: Path | None = None) -> list[dict]:
    """Write the pictures, and return what is asked of each with the true masks."""
    vocabulary = load_vocabulary()
    examiner = Examiner(vocabulary, load_atlas(vocabulary, cache), SIZE)
    out.mkdir(parents=True, exist_ok=True)
    scenes: list[dict] = []
    for split, count in SCENES.items():
        image, number = None, 0
        for question in examiner.questions(split, count):
            if question.image is not image:
                image, number = question.image, number + 1
                file = f"{split.partition(' (')[0].replace(' ', '_')}_{number:02d}.webp"
                pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                cv2.imwrite(str(out / file), pixels, [cv2.IMWRITE_WEBP_QUALITY, 92])
                scenes.append({"file": file, "split": split, "prompts": []})
            scenes[-1]["prompts"].append(_written(question))
    return scenes


def figures_of(out: Path, scenes: list[dict], checkpoint: Path, threshold: float) -> dict[str, dict]:
    """Measure a checkpoint on the set in fp32: words with the `Sam3Model` of transformers, which knows nothing of us.

    Its box prompts need torchvision; boxes are shown to our own network, which tests hold against it.
    """
    from tokenizers import Tokenizer
    from transformers import Sam3Model

    model = Sam3Model.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    predictor = Predictor.from_path(checkpoint, device="cpu", dtype="float32")
    outcomes: dict[str, list] = {split: [] for split in SCENES}
    for scene in scenes:
        image = cv2.cvtColor(cv2.imread(str(out / scene["file"])), cv2.COLOR_BGR2RGB)
        (features,) = predictor.encode_images([image])
        for prompt in scene["prompts"]:
            if prompt["boxes"]:
                boxes = tuple(BoxPrompt(tuple(box), positive=True) for box in prompt["boxes"])
                (found,) = predictor.predict(features, [Query(prompt["text"], boxes)], threshold=threshold)
                masks = masks_of(found, image.shape[:2])
            else:
                _, masks = transformers_finds(model, image, tokenizer.encode(prompt["text"]).ids, threshold)
            outcomes[scene["split"]].append(compare(masks, _decoded(prompt["masks"])))
    return {split: _rounded(asdict(summarise(found))) for split, found in outcomes.items()}


def transformers_finds(
    model: Sam3Model, image: np.ndarray, ids: list[int], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what transformers finds, best first: scores (N,) and masks, bool (N, S, S).

    Args:
        model: With the weights of a checkpoint.
        image: uint8 (S, S, 3) RGB.
        ids: Tokens of the prompt.
        threshold: Score above which an instance counts.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        said = model(pixel_values=pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))
    scores = said.pred_logits[0].sigmoid() * said.presence_logits[0].sigmoid()
    order = [int(i) for i in scores.argsort(descending=True) if scores[i] > threshold]
    if not order:
        return np.zeros(0, np.float32), np.zeros((0, *image.shape[:2]), bool)
    logits = said.pred_masks[:, order]
    full = torch.nn.functional.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)
    return scores[order].numpy(), (full[0] > 0).numpy()


def _written(question: Question) -> dict:
    boxes = [list(box.cxcywh) for box in question.query.boxes]
    return {"text": question.query.text, "boxes": boxes, "masks": [_rle(mask) for mask in question.masks]}


def _rle(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _decoded(rles: list[dict]) -> np.ndarray:
    masks = [coco.decode({**rle, "counts": rle["counts"].encode()}) > 0 for rle in rles]
    return np.array(masks, bool).reshape(-1, SIZE, SIZE)


def _rounded(figures: dict) -> dict:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}


def main() -> None:
    """Draw the set, and measure a checkpoint on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="whose figures to state")
    args = parser.parse_args()
    threshold = json.loads((args.checkpoint / "config.json").read_text())["s3seg"]["threshold"]
    scenes = draw_set(args.out)
    figures = figures_of(args.out, scenes, args.checkpoint, threshold)
    truth = {"figures": figures, "size": [SIZE, SIZE], "threshold": threshold, "scenes": scenes}
    (args.out / "scenes.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
