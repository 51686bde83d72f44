"""``s3seg concept make``: examples on some pictures become a file that finds the same on others."""

from __future__ import annotations

from typing import Annotated

import typer

from s3seg.commands.help import CommandWithSections
from s3seg.commands.segmenter_options import CHECKPOINT_DEFAULT, MODEL, Device

app = typer.Typer(help="Make concepts from examples.", no_args_is_help=True, rich_markup_mode=None)


@app.command("make", cls=CommandWithSections)
def make(
    output: Annotated[str, typer.Argument(metavar="FILE", help="The concept to write, FILE.safetensors.")],
    examples: Annotated[
        list[str],
        typer.Option(
            "--example", metavar="PICTURE:X1,Y1,X2,Y2", help="Box around an example to find, in pixels; repeatable."
        ),
    ],
    negative: Annotated[
        list[str] | None,
        typer.Option(
            "--not-example",
            metavar="PICTURE:X1,Y1,X2,Y2",
            help="Box around what not to find, on a picture with an example; repeatable.",
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="Its name, as a further prompt."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH|REPO",
            help="The checkpoint that will use the concept; no other can.",
            show_default=CHECKPOINT_DEFAULT,
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")] = False,
) -> None:
    """Make a concept from examples on some pictures, to find the same on others.

    Use it with: s3seg segment photos/ --concept FILE.safetensors
    """
    from pathlib import Path

    from s3seg.commands.segment.options import Box, parse_box
    from s3seg.commands.terminal import Terminal
    from s3seg.errors import InvalidRequestError
    from s3seg.inference.concepts import SUFFIX
    from s3seg.inference.segmenter import Segmenter

    if Path(output).suffix != SUFFIX:
        raise InvalidRequestError(f"a concept is a file that ends in {SUFFIX}, got {output!r}")
    boxes: dict[str, tuple[list[Box], list[Box]]] = {}
    for positive, marks in ((True, examples), (False, negative or [])):
        for mark in marks:
            picture, colon, box = mark.rpartition(":")
            if not colon or not picture:
                raise InvalidRequestError(f"an example is written a.png:20,30,200,180 (x1,y1,x2,y2); got {mark!r}")
            boxes.setdefault(picture, ([], []))[0 if positive else 1].append(parse_box(box))
    segmenter = Segmenter(checkpoint, device=device)
    concept = segmenter.concept(words, [(picture, *both) for picture, both in boxes.items()])
    written = concept.save(output)
    what = f"{concept.boxes} box{'' if concept.boxes == 1 else 'es'} on {concept.examples} picture"
    Terminal(quiet=quiet).note(f"{what}{'' if concept.examples == 1 else 's'}; wrote {written}; for {concept.model}")
