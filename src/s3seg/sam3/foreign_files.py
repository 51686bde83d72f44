"""Recognize files that are not SAM 3 checkpoints, to say what they are and what to do instead.

Each function returns a message that continues "<path> ...", or None if the file is not one that it knows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

_REFERENCE = "backbone.language_backbone.encoder."


def describe_content(path: Path) -> str | None:
    """Recognize, by its first bytes, a file that was saved in place of weights."""
    with path.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"version https://git-lfs"):
        return (
            f"is a git-lfs pointer ({path.stat().st_size:,} bytes), not the weights: the repository was cloned without "
            "its large files. Run 'git lfs pull' in its folder, or download it with 's3seg models pull'."
        )
    if re.match(rb"<(!doctype|html|\?xml)", start, re.IGNORECASE):
        return (
            f"is a web page ({path.stat().st_size:,} bytes), not the weights; the download probably needs a login or "
            "an approval. Download it again, for example with 's3seg models pull'."
        )
    if re.match(rb"\{\s*[\"}]", start):  # not "{" alone: a safetensors file starts with a number in binary
        text = " ".join(start[:200].decode(errors="replace").split())
        return f"is a JSON text, not the weights: {text} Download it again, for example with 's3seg models pull'."
    return None


def describe_pickle_error(err: Exception) -> str | None:
    """Recognize a ``.pt`` file with Python objects in it, by the error of loading it as tensors only."""
    match = re.search(r"GLOBAL ([\w.]+)", str(err))
    if match is None:
        return None
    if match[1].startswith("ultralytics."):
        return (
            f"is an Ultralytics model such as YOLO ({match[1]}), not a SAM 3. s3seg loads SAM 3 only; "
            "see 's3seg models list'."
        )
    return (
        f"holds Python objects ({match[1]}), not tensors only. Loading it could run code, so s3seg does not; save its "
        "state_dict as .safetensors instead."
    )


def describe_names(names: Collection[str]) -> str | None:
    """Recognize checkpoints of models that were distilled from SAM 3, by their tensor names."""
    names = {name.removeprefix("detector.") for name in names}
    if f"{_REFERENCE}embedding_layer.weight" in names:
        return (
            "is an EfficientSAM3 or SAM3-LiteText checkpoint in the layout of its training code. s3seg reads "
            "SAM3-LiteText as converted for transformers, such as vil-uob/sam3-litetext-s0 "
            "('s3seg models pull litetext'); it does not read EfficientSAM3."
        )
    image_encoder = {name for name in names if name.startswith("backbone.vision_backbone.trunk.")}
    if image_encoder and not any(".trunk.blocks." in name for name in image_encoder):
        return (
            "has a different image encoder from SAM 3's (its first tensor is "
            f"{min(image_encoder)!r}), as EfficientSAM3 has. s3seg does not support it."
        )
    return None


def describe_dtypes(dtypes: Iterable[str]) -> str | None:
    """Recognize quantized weights by the names of their dtypes, as safetensors or torch write them."""
    quantized = sorted(dtype for dtype in set(dtypes) if re.search(r"(i|u|f|int|float)8", dtype.lower()))
    if not quantized:
        return None
    return (
        f"holds quantized weights ({', '.join(quantized)}). s3seg reads fp32, fp16 and bf16; use the file with one of "
        "these, often model.safetensors in the same repository."
    )
