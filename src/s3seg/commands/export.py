"""``s3seg export``: turn results into what other programs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3seg.commands.help import CommandWithSections

app = typer.Typer(help="Turn results into data sets for training.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _export() -> None:
    """Turn results into data sets for training."""


@app.command("yolo", cls=CommandWithSections)
def yolo(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="Files of `s3seg segment` with --json, --jsonl or --format coco, or any COCO dataset of instances.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The data set to make; must not exist, or be empty.")
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Names in the data set begin below this folder; of a COCO dataset, its pictures are there.",
            show_default="the folder that all pictures share",
        ),
    ] = None,
    val: Annotated[float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of pictures for validation.")] = 0.2,
    tolerance: Annotated[
        float, typer.Option(min=0, metavar="PIXELS", help="How far outlines may move, to leave out vertices.")
    ] = 1.0,
    link: Annotated[bool, typer.Option("--link", help="Link to the pictures instead of copying them.")] = False,
) -> None:
    """Make a data set for training YOLO.

    Writes images/train, images/val, the same folders in labels/, and data.yaml.
    The prompts are the classes. Pictures with nothing on them are kept as background.
    """
    from s3seg.commands.result_files import read_results
    from s3seg.commands.terminal import Terminal
    from s3seg.results.yolo_dataset import write_yolo_dataset

    found = [result for path in results for result in read_results(path, root=root)]
    made = write_yolo_dataset(found, output, root=root, val=val, tolerance=tolerance, link=link)
    Terminal().note(
        f"{made.folder}: {', '.join(made.classes):.200}; instances: {made.instances}, "
        f"pictures for training: {made.train}, for validation: {made.val}; "
        f"train with: yolo segment train data={made.folder / 'data.yaml'}"
    )
