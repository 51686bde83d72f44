"""``s3seg segment``: its options, and the order of things."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3seg.commands.formats import Format
from s3seg.errors import InvalidRequestError

_OUTPUT = "Output"
_MODEL = "Model"
_SERVICE = "Service"


def segment(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT... PROMPT",
            help="Pictures (files, folders, globs, URLs, - for standard input), and last what to look for.",
            show_default=False,
        ),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="A further thing to look for; repeatable."),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="An example to look for, in pixels; repeatable."),
    ] = None,
    negative_boxes: Annotated[
        list[str] | None,
        typer.Option("--negative-box", metavar="X1,Y1,X2,Y2", help="An example of what not to find; repeatable."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SCORE",
            help="Keep instances that score above this.",
            show_default="the checkpoint's",
        ),
    ] = None,
    max_instances: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep the best N of each prompt.", show_default="all"),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search folders with their subfolders.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="PATH|DIR", help="Draw the instances on the picture.", rich_help_panel=_OUTPUT),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH|DIR",
            help="Write a label map (PNG): 0 background, 1 the best instance ...",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Cut every instance out (PNG with alpha).", rich_help_panel=_OUTPUT),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="All results as one JSON array.", rich_help_panel=_OUTPUT)
    ] = False,
    jsonl: Annotated[
        bool,
        typer.Option(
            "--jsonl",
            help="A line of JSON for each picture and prompt, as it is found.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    format_: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="All results in one of these formats.", rich_help_panel=_OUTPUT),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH|DIR",
            help="Where --json, --jsonl or --format goes.",
            show_default="standard output",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an earlier run: skip what is done.", rich_help_panel=_OUTPUT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel=_OUTPUT)
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH|REPO",
            help='"embedded", "sam3", a folder, a weights file or a repo id.',
            show_default="S3SEG_CHECKPOINT, else sam3 if it is here, else embedded",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda, cuda:1 ...", rich_help_panel=_MODEL)
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="auto, float32, bfloat16 or float16.", rich_help_panel=_MODEL)
    ] = "auto",
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Side to which pictures are resized; smaller is faster and sees less.",
            show_default="the checkpoint's",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask an s3seg service instead of this machine.", rich_help_panel=_SERVICE),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN", help="Access token for --url.", show_default="S3SEG_TOKEN", rich_help_panel=_SERVICE
        ),
    ] = None,
) -> None:
    """Find every instance of what you say, in every picture.

    Without an output option it prints a table. Results go to standard output, everything else to standard error.
    """
    from s3seg import checkpoints
    from s3seg.commands import arguments, pictures, targets
    from s3seg.commands.backends import LocalBackend, RemoteBackend
    from s3seg.commands.files import Files
    from s3seg.commands.keys import Request, key_of
    from s3seg.commands.outputs import Journal
    from s3seg.commands.run import Account, run, tell
    from s3seg.commands.terminal import Terminal

    terminal = Terminal(quiet=quiet)
    account = Account()
    words, found_prompts = arguments.split(words, prompts or [], has_boxes=bool(boxes))
    request = Request(
        prompts=found_prompts,
        boxes=[arguments.parse_box(box) for box in boxes or []],
        negative_boxes=[arguments.parse_box(box) for box in negative_boxes or []],
        threshold=threshold,
        max_instances=max_instances,
        image_size=image_size,
        dtype=dtype,
    )
    wanted = targets.parse(
        overlay=overlay, mask=mask, crops=crops, json=json, jsonl=jsonl, format_=format_, output=output
    )
    if resume and not wanted.lasting:
        raise InvalidRequestError(
            "--resume goes on with files of an earlier run: name an output folder, or a file with -o"
        )
    journals = {folder: Journal(folder) for folder in wanted.folders}

    def failed(word: str, err: InvalidRequestError) -> None:
        account.failed += 1
        terminal.warn(str(err), label="error")

    found = pictures.find(
        words,
        recursive=recursive,
        leave_out=lambda path: any(journal.owns(path) for journal in journals.values()),
        on_error=failed,
    )
    if not found:
        if not account.failed:
            raise InvalidRequestError("the only pictures there are were written by s3seg itself")
        raise typer.Exit(account.exit_code)
    if url is None:
        finder = LocalBackend(checkpoints.resolve(checkpoint), device)
    elif checkpoint is None and device == "auto":
        finder = RemoteBackend(url, token)
    else:
        raise InvalidRequestError("--checkpoint and --device are the service's own business: leave them out")
    answered = request.key(finder.identity())
    keys = {str(picture.source): key_of(picture, answered) for picture in found}
    this_run = targets.Run(keys, found_prompts, resume)
    wanted.check(this_run)
    files = Files(found)
    outputs = wanted.outputs(this_run, files=files, terminal=terminal, journals=journals)
    try:
        loaded = run(
            found,
            request,
            outputs,
            finder=finder,
            keys=keys,
            resume=resume,
            terminal=terminal,
            account=account,
        )
    except KeyboardInterrupt:
        go_on = "; the same command with --resume goes on" if wanted.lasting else ""
        terminal.warn(f"after {account.done + account.skipped} of {len(found)} pictures{go_on}", label="stopped")
        raise
    tell(account, finder, loaded, files.written, terminal)
    raise typer.Exit(account.exit_code)
