"""What the readers of the documentation have at hand: a clone, and pictures of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from hotcoco import mask as coco
from PIL import Image

from tests.docs.blocks import ROOT

PICTURES = ROOT / "examples" / "pictures"
_CLONED = ("benchmarks", "constraints.txt", "deploy", "examples", "pyproject.toml", "src", "tests")


def provide(folder: Path) -> None:
    """Put into the folder what a clone has, and the pictures that pages take for granted; they are our drawings."""
    for name in _CLONED:
        (folder / name).symlink_to(ROOT / name)
    for name in ("park.png", "street.png"):
        shutil.copy(PICTURES / name, folder)
    shutil.copy(PICTURES / "park.png", folder / "a.png")
    shutil.copy(PICTURES / "street.png", folder / "b.png")
    for name, drawing in (("a", "park"), ("b", "street"), ("park", "park"), ("kitchen", "kitchen_table")):
        _copy(drawing, folder / f"{name}.jpg")
    for name, drawing in (("desk", "kitchen_table"), ("shelf", "shapes")):
        _copy(drawing, folder / f"{name}.jpg")
    for place in ("photos", "more"):
        (folder / place).mkdir()
        for drawing in ("park", "street"):
            _copy(drawing, folder / place / f"{drawing}.jpg")
    _write_labels(folder)


def write_video(path: Path) -> None:
    """A video of twenty frames, each the drawing of a street."""
    import av

    frame = av.VideoFrame.from_ndarray(np.asarray(Image.open(PICTURES / "street.png").convert("RGB")))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        for _ in range(20):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _copy(drawing: str, path: Path) -> None:
    Image.open(PICTURES / f"{drawing}.png").convert("RGB").save(path, quality=95)


def _write_labels(folder: Path) -> None:
    """Labels of the pictures in ``photos``, as a COCO dataset and as the masks that `s3seg segment --mask` writes."""
    prompts = ("tree", "sun")
    dataset = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "tree"}, {"id": 2, "name": "sun"}]}
    (folder / "masks").mkdir()
    for number, drawing in enumerate(("park", "street"), 1):
        truth = json.loads((PICTURES / f"{drawing}.json").read_text(encoding="utf-8"))
        height, width = truth["size"]
        dataset["images"].append({"id": number, "file_name": f"{drawing}.jpg", "height": height, "width": width})
        for category, prompt in enumerate(prompts, 1):
            label_map = np.zeros((height, width), np.uint8)
            drawn = [each["segmentation"] for each in truth["instances"] if each["label"] == prompt]
            for k, rle in enumerate(drawn, 1):
                label_map[coco.decode(rle).astype(bool)] = k
                dataset["annotations"].append(
                    {
                        "id": len(dataset["annotations"]) + 1,
                        "image_id": number,
                        "category_id": category,
                        "segmentation": rle,
                        "bbox": list(map(float, coco.to_bbox(rle))),
                        "area": float(coco.area(rle)),
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(label_map).save(folder / "masks" / f"{drawing}.{prompt}.mask.png")
    (folder / "labels.json").write_text(json.dumps(dataset), encoding="utf-8")
