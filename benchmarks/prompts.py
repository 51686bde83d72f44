"""One picture and N prompts: s3seg beside transformers, with the same weights and the same preprocessing.

The work ends with masks at the picture's size: as RLE in s3seg, as a boolean array in transformers.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

import s3seg
from benchmarks.timing import in_turns, show
from s3seg import images
from s3seg.sam3.load import load
from s3seg.sam3.resize import preprocess

PICTURE = Path(__file__).parent.parent / "examples" / "pictures" / "street.png"
PROMPTS = ["car", "house", "tree", "cat", "bus", "bicycle", "cloud", "dog"] * 2


def main() -> None:
    """Measure loading, and 1, 4 and 16 prompts."""
    seg = s3seg.Segmenter("embedded", device="cpu", dtype="float32")
    modeling_sam3 = importlib.import_module("transformers.models.sam3.modeling_sam3")
    peer = modeling_sam3.Sam3Model.from_pretrained(seg.checkpoint.folder, dtype=torch.float32).eval()
    tokenizer = seg.predictor.tokenizer
    picture = images.load(PICTURE)

    @torch.inference_mode()
    def transformers(prompts: list[str], *, share_image: bool) -> None:
        pixels = preprocess(picture.pixels, seg.image_size)
        vision = peer.get_vision_features(pixel_values=pixels) if share_image else None
        for prompt in prompts:
            ids = torch.tensor([tokenizer(prompt)])
            image = {"vision_embeds": vision} if share_image else {"pixel_values": pixels}
            said = peer(**image, input_ids=ids, attention_mask=torch.ones_like(ids))
            scores = (said.pred_logits.sigmoid() * said.presence_logits.sigmoid())[0]
            kept = said.pred_masks[:, scores > seg.metadata.threshold].sigmoid()
            if kept.shape[1]:
                torch.nn.functional.interpolate(kept, size=picture.size, mode="bilinear").gt(0.5)

    folder = seg.checkpoint.folder
    show("The embedded checkpoint's weights", {"load": in_turns({"s3seg": lambda: load(folder)})})
    rows = {
        f"{count} prompts": in_turns(
            {
                "s3seg": lambda prompts=PROMPTS[:count]: seg.segment(picture, prompts),
                "transformers": lambda prompts=PROMPTS[:count]: transformers(prompts, share_image=False),
                "transformers, image shared": lambda prompts=PROMPTS[:count]: transformers(prompts, share_image=True),
            }
        )
        for count in (1, 4, 16)
    }
    show(f"One picture of {picture.width} x {picture.height}, the embedded checkpoint, CPU, fp32", rows)


if __name__ == "__main__":
    main()
