"""How often `looks_like_photograph` is wrong, on photographs from Python packages and on drawings.

The photographs that scikit-image and Matplotlib install are always looked at; the thresholds were chosen with those of
scikit-image. These packages bring photographs that were not: ``pip install --no-deps scikit-learn ultralytics gradio``.
The drawings of the training code need npm the first time; see ``examples/train_small_sam3``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from s3seg import images
from s3seg.images.photographs import looks_like_photograph

ROOT = Path(__file__).parent.parent
CHOSEN_WITH = {
    "skimage": (
        "data/astronaut.png", "data/brick.png", "data/camera.png", "data/chelsea.png", "data/coffee.png",
        "data/coins.png", "data/grass.png", "data/gravel.png", "data/hubble_deep_field.jpg", "data/ihc.png",
        "data/moon.png", "data/motorcycle_left.png", "data/motorcycle_right.png", "data/retina.jpg", "data/rocket.jpg",
    ),
}  # fmt: skip
HELD_OUT = {
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "ultralytics": ("assets/bus.jpg", "assets/zidane.jpg"),
    "gradio": tuple(f"media_assets/images/{name}" for name in ("cheetah1.jpg", "groot.jpeg", "lion.jpg", "tower.jpg")),
}
DRAWINGS = (
    *(f"examples/pictures/{name}.png" for name in ("kitchen_table", "park", "shapes", "street")),
    *(f"docs/images/{name}.png" for name in ("embedded-curve", "park", "playground")),
)
ICONS = 150
SCENES = 60

Picture = np.ndarray  # (H, W, 3) uint8


def main() -> None:
    """Print, for each kind of picture, in how many cases the guess is wrong."""
    print("| pictures | as they are | JPEG, quality 40 | noise of 6 levels | enlarged from 120 px | grey | crops |")
    print("|---|---|---|---|---|---|---|")
    _row("photographs of scikit-image", _installed(CHOSEN_WITH), photographs=True)
    _row("other photographs", _installed(HELD_OUT), photographs=True)
    _row("drawings of this repository", [_load(ROOT / name) for name in DRAWINGS], photographs=False)
    sys.path.insert(0, str(ROOT / "examples"))
    _row("icons on paper", list(_icons()), photographs=False)
    print(f"\n| {SCENES} test scenes of the training code each | taken for photographs |\n|---|---|")
    for split, scenes in _scenes():
        print(f"| {split} | {_count(scenes)} of {len(scenes)} |")


def _row(name: str, pictures: list[Picture], *, photographs: bool) -> None:
    """Print one line: errors among the pictures as they are, and in variants of each."""
    cells = []
    for variant in (_same, _jpeg, _noisy, _enlarged, _grey, _crops):
        varied = [one for picture in pictures for one in variant(picture)]
        found = _count(varied)
        wrong = len(varied) - found if photographs else found
        cells.append(f"{wrong} of {len(varied)}" if photographs or variant is not _crops else "–")
    print(f"| {name} | {' | '.join(cells)} |")


def _count(pictures: list[Picture]) -> int:
    return sum(map(looks_like_photograph, pictures))


def _load(path: Path) -> Picture:
    return images.load(path).pixels


def _installed(packages: dict[str, tuple[str, ...]]) -> list[Picture]:
    folders = {name: spec.origin for name in packages if (spec := find_spec(name))}
    paths = [Path(origin).parent / name for package, origin in folders.items() if origin for name in packages[package]]
    return [_load(path) for path in paths if path.is_file()]


# ---- variants ----


def _same(picture: Picture) -> list[Picture]:
    return [picture]


def _jpeg(picture: Picture) -> list[Picture]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=40)
    return [np.asarray(Image.open(buffer))]


def _noisy(picture: Picture) -> list[Picture]:
    noise = np.random.default_rng(0).normal(0, 6, picture.shape)
    return [(picture + noise).clip(0, 255).astype(np.uint8)]


def _enlarged(picture: Picture) -> list[Picture]:
    small = Image.fromarray(picture)
    small.thumbnail((120, 120), Image.Resampling.BILINEAR)
    return [np.asarray(small.resize((5 * small.width, 5 * small.height), Image.Resampling.BICUBIC))]


def _grey(picture: Picture) -> list[Picture]:
    return [np.asarray(Image.fromarray(picture).convert("L").convert("RGB"))]


def _crops(picture: Picture) -> list[Picture]:
    """Return the four quarters, and the middle."""
    height, width = picture.shape[:2]
    corners = [(0, 0), (0, width // 2), (height // 2, 0), (height // 2, width // 2), (height // 4, width // 4)]
    return [np.ascontiguousarray(picture[y : y + height // 2, x : x + width // 2]) for y, x in corners]


# ---- what the training code draws ----


def _icons() -> Iterator[Picture]:
    """Yield one to three icons each on white or coloured paper, 384 x 384."""
    from train_small_sam3.concepts import load_vocabulary
    from train_small_sam3.icons import load_atlas

    icons = load_atlas(load_vocabulary()).levels[0]  # (N, 128, 128, 4), premultiplied
    rng = np.random.default_rng(0)
    for _ in range(ICONS):
        paper = (255, 255, 255) if rng.random() < 0.6 else tuple(int(value) for value in rng.integers(0, 256, 3))
        picture = Image.new("RGB", (384, 384), paper)
        for _ in range(int(rng.integers(1, 4))):
            side = int(rng.integers(115, 307))
            left, top = (int(place) for place in rng.integers(0, 385 - side, 2))
            icon, alpha = _pasted(icons[int(rng.integers(len(icons)))], side)
            picture.paste(icon, (left, top), alpha)
        yield np.asarray(picture)


def _pasted(icon: np.ndarray, side: int) -> tuple[Image.Image, Image.Image]:
    alpha = np.maximum(icon[..., 3:], 1)
    straight = np.concatenate([(icon[..., :3] * (255 / alpha)).clip(0, 255), icon[..., 3:]], axis=-1)
    image = Image.fromarray(straight.astype(np.uint8), "RGBA").resize((side, side), Image.Resampling.BICUBIC)
    return image.convert("RGB"), image.getchannel("A")


def _scenes() -> Iterator[tuple[str, list[Picture]]]:
    """Yield the name of each split of the evaluation, and its first scenes."""
    from train_small_sam3.concepts import load_vocabulary
    from train_small_sam3.icons import load_atlas
    from train_small_sam3.splits import RECIPES, Examiner

    vocabulary = load_vocabulary()
    examiner = Examiner(vocabulary, load_atlas(vocabulary), 224)
    for split in RECIPES:
        scenes: list[Picture] = []
        for question in examiner.questions(split, SCENES):
            if not scenes or question.image is not scenes[-1]:
                scenes.append(question.image)
        yield split, scenes


if __name__ == "__main__":
    main()
