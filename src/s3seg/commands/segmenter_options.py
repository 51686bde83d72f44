"""The options of commands that segment with a model on this machine, where several commands have the same."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL = "Model"
"""The panel of the options that choose the model."""

MorePrompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", "-p", metavar="TEXT", help="Another thing to look for; repeatable."),
]
Thresholds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SCORE",
        help="Keep instances with a higher score; PROMPT=SCORE for one prompt, repeatable; or calibrated.",
        show_default="the checkpoint's",
    ),
]
MaxInstances = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Keep the best N instances of each prompt.", show_default="all"),
]
CHECKPOINT_DEFAULT = "S3SEG_CHECKPOINT, else SAM 3 if downloaded, else embedded"
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH|REPO",
        help='"embedded", "litetext", "sam3", a folder, a weights file or a repo id.',
        show_default=CHECKPOINT_DEFAULT,
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda, cuda:1 ...", rich_help_panel=MODEL)]
Dtype = Annotated[str, typer.Option(metavar="NAME", help="auto, float32, bfloat16 or float16.", rich_help_panel=MODEL)]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Resize pictures to this side; smaller is faster but misses detail.",
        show_default="the checkpoint's",
        rich_help_panel=MODEL,
    ),
]
