"""The command ``s3seg segment``: its options as users see them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3seg.commands.segment.output_options import (
    MASK_SUFFIXES,
    OVERLAY_SUFFIXES,
    Format,
    MaskKind,
    OutputOptions,
    choose_format,
    parse_folder,
    parse_target,
    suffixes_of,
)
from s3seg.commands.segmenter_options import (
    MODEL,
    Checkpoint,
    Device,
    Dtype,
    ImageSize,
    MaxInstances,
    MorePrompts,
    Thresholds,
)
from s3seg.errors import InvalidRequestError

_OUTPUT = "Output"
_SERVICE = "Service"


def segment(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT... PROMPT",
            help="Pictures (files, folders, globs, URLs, - for standard input), then what to look for.",
            show_default=False,
        ),
    ],
    prompts: MorePrompts = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="Box around an example to find, in pixels; repeatable."),
    ] = None,
    negative_boxes: Annotated[
        list[str] | None,
        typer.Option("--negative-box", metavar="X1,Y1,X2,Y2", help="Box around an example not to find; repeatable."),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="X,Y", help="Point on the one object to segment, in pixels; repeatable."),
    ] = None,
    negative_points: Annotated[
        list[str] | None,
        typer.Option("--not-point", metavar="X,Y", help="Point on what does not belong to it; repeatable."),
    ] = None,
    concept: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Find what a file of `s3seg concept make` shows, instead of a prompt."),
    ] = None,
    threshold: Thresholds = None,
    max_instances: MaxInstances = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="auto|PIXELS",
            help="Also look into overlapping tiles of this side, for small or many things; slower.",
            show_default="the whole picture only",
        ),
    ] = None,
    no_overlaps: Annotated[
        bool, typer.Option("--no-overlaps", help="Give each pixel to the best instance of all prompts.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders too.")] = False,
    overlay: Annotated[
        str | None,
        typer.Option(metavar="PATH|DIR", help="Draw the instances on the picture.", rich_help_panel=_OUTPUT),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|DIR",
            help="Write a label map (PNG): 0 background, 1 the best instance, 2 the next.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    mask_kind: Annotated[
        MaskKind,
        typer.Option(
            help="With --mask: labels; binary (255 is anything found); palette (labels as colours); "
            "classes (1 the first prompt, 2 the next; one file).",
            rich_help_panel=_OUTPUT,
        ),
    ] = MaskKind.LABELS,
    crops: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Cut out each instance (PNG with alpha).", rich_help_panel=_OUTPUT),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Write all results as one JSON array.", rich_help_panel=_OUTPUT)
    ] = False,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl",
            help="Write a line of JSON for each picture and prompt, as soon as it is done.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    format_: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="Write all results in this format.", rich_help_panel=_OUTPUT),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH|DIR",
            help="Where to write --json, --jsonl or --format.",
            show_default="standard output",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    polygons: Annotated[
        bool, typer.Option("--polygons", help="With --format coco: polygons, not RLE.", rich_help_panel=_OUTPUT)
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="How far outlines of polygons may move, to leave out vertices.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.0,
    base_names: Annotated[
        bool,
        typer.Option(
            "--base-names", help="With --format coco: name pictures without their folders.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an earlier run: skip finished pictures.", rich_help_panel=_OUTPUT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only.", rich_help_panel=_OUTPUT)
    ] = False,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    image_size: ImageSize = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Thresholds that `s3seg calibrate` chose.", rich_help_panel=MODEL),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Segment on this s3seg service instead of this machine.", rich_help_panel=_SERVICE
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN", help="Access token for --url.", show_default="S3SEG_TOKEN", rich_help_panel=_SERVICE
        ),
    ] = None,
) -> None:
    """Find every instance of the prompts in every picture.

    Prints a table unless an output option is given.
    Results go to standard output, everything else to standard error.
    """
    from s3seg.commands.segment.options import (
        ModelOptions,
        Request,
        SegmentOptions,
        parse_box,
        parse_point,
        parse_thresholds,
        parse_tile,
        split_words,
    )
    from s3seg.commands.segment.run import run

    if calibration and threshold:
        raise InvalidRequestError("--calibration has a threshold for each prompt; leave out --threshold")
    output = None if output == "-" else output
    format_ = choose_format(json=json, jsonl=jsonl, format_=format_, output=output)
    marks = bool(boxes or points or negative_points or concept)
    inputs, all_prompts = split_words(words, prompts or [], has_marks=marks)
    options = SegmentOptions(
        inputs=inputs,
        recursive=recursive,
        request=Request(
            prompts=all_prompts,
            boxes=[parse_box(box) for box in boxes or []],
            negative_boxes=[parse_box(box) for box in negative_boxes or []],
            points=[parse_point(point) for point in points or []],
            negative_points=[parse_point(point) for point in negative_points or []],
            concept=concept,
            threshold="calibrated" if calibration else parse_thresholds(threshold or [], all_prompts),
            max_instances=max_instances,
            tile=parse_tile(tile),
            overlaps=not no_overlaps,
        ),
        model=ModelOptions(
            checkpoint=checkpoint,
            device=device,
            dtype=dtype,
            image_size=image_size,
            calibration=calibration,
            url=url,
            token=token,
        ),
        output=OutputOptions(
            overlay=parse_target(overlay, option="--overlay", suffixes=OVERLAY_SUFFIXES),
            mask=parse_target(mask, option="--mask", suffixes=MASK_SUFFIXES),
            crops=parse_folder(crops, option="--crops"),
            format=format_,
            output=parse_target(output, option="-o", suffixes=suffixes_of(format_)),
            mask_kind=mask_kind,
            polygons=polygons,
            tolerance=tolerance,
            base_names=base_names,
        ),
        resume=resume,
        quiet=quiet,
    )
    raise typer.Exit(run(options))
