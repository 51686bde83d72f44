"""Make a data set for training YOLO from a folder of pictures: one class for each thing that you name.

    python examples/yolo_dataset/make_dataset.py examples/pictures dataset tree cloud sun
    yolo segment train data=dataset/data.yaml model=yolo11n-seg.pt      # pip install ultralytics

Look at ``dataset-drawn`` before you train: labels are as good as the checkpoint is at your pictures.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import s3seg
from s3seg.errors import S3segError
from s3seg.results.yolo_dataset import write_yolo_dataset

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a YOLO data set from a folder of pictures.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, help="the data set; must not exist")
    parser.add_argument("prompts", nargs="+", help="what to look for; these are the classes")
    parser.add_argument("--min-score", type=float, default=0.5, help="leave out instances below this score")
    arguments = parser.parse_args()
    pictures = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    drawn = arguments.out.with_name(f"{arguments.out.name}-drawn")
    drawn.mkdir(parents=True, exist_ok=True)
    found: list[s3seg.Segmentation] = []
    for number, (path, results) in enumerate(s3seg.Segmenter().segment_many(pictures, arguments.prompts)):
        sure = [result.filter(min_score=arguments.min_score) for result in results]
        s3seg.draw.overlay(path, sure).save(drawn / f"{number:05}-{path.stem}.jpg")
        found += [replace(one, image=None) for one in sure]  # its pixels, which the data set reads from the file
    made = write_yolo_dataset(found, arguments.out, root=arguments.folder)
    print(f"{made.folder}: {made.train} pictures to train, {made.val} to validate, {made.instances} instances of")
    print(", ".join(made.classes))


if __name__ == "__main__":
    try:
        main()
    except S3segError as error:
        sys.exit(f"{error.code}: {error}")
