"""The command ``s3seg demo``: find things in a picture that comes with the package, and draw them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

PICTURE = Path(__file__).parent / "park.webp"
DRAWN = "s3seg-demo.png"
PROMPTS = ("tree", "sun", "cloud")


def demo(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="Where to write the drawing (PNG, JPEG or WebP).")
    ] = DRAWN,
) -> None:
    """Find trees, the sun and clouds in a drawing that comes with s3seg, and draw them.

    Needs no picture, no download and no account: it uses the embedded checkpoint.
    """
    from s3seg.checkpoints import FOR_PHOTOGRAPHS
    from s3seg.commands.errors import ERROR
    from s3seg.commands.segment.options import ModelOptions, Request, SegmentOptions
    from s3seg.commands.segment.output_options import OVERLAY_SUFFIXES, OutputOptions, parse_target
    from s3seg.commands.segment.run import run
    from s3seg.commands.terminal import Terminal

    terminal = Terminal()
    target = Path(output) / DRAWN if Path(output).is_dir() else Path(output)
    terminal.note(f"looking for {', '.join(PROMPTS)} in {PICTURE}")
    exit_code = run(
        SegmentOptions(
            inputs=[str(PICTURE)],
            recursive=False,
            request=Request(prompts=PROMPTS),
            model=ModelOptions(checkpoint="embedded"),
            output=OutputOptions(overlay=parse_target(str(target), option="--output", suffixes=OVERLAY_SUFFIXES)),
            resume=False,
            quiet=False,
        )
    )
    if exit_code:
        raise typer.Exit(ERROR)
    terminal.write(f"{target.resolve()}\n")
    terminal.note(f"s3seg segment {shlex.quote(str(PICTURE))} animal", label="try another word")
    terminal.note(FOR_PHOTOGRAPHS, label="for photographs")
