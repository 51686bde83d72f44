"""The commands ``s3seg bulk``: their options as users see them.

``s3seg bulk INPUT OUT`` is short for ``s3seg bulk run INPUT OUT``.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from s3seg.commands.help import CommandWithSections
from s3seg.commands.segmenter_options import CHECKPOINT_DEFAULT, MODEL, Dtype, ImageSize, MaxInstances

_PROCESSES = "Processes"


class RunByDefault(TyperGroup):
    """A group in which a first word that is no command is the input of ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` in front of anything but a command or a request for help."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    help="Segment very many pictures, here or on a cluster: s3seg bulk INPUT OUT -p cat, which is short for bulk run.",
    no_args_is_help=True,
    subcommand_metavar="INPUT OUT | COMMAND [ARGS]...",
)

Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A folder, a quoted pattern, a .txt or .parquet list of addresses, or s3://bucket/prefix.",
        show_default=False,
    ),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="A folder, or s3://bucket/prefix.", show_default=False)]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What to look for; repeatable.")
]
PromptFile = Annotated[
    str | None, typer.Option("--prompts", metavar="FILE", help="A text file with a prompt on each line.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, metavar="SCORE", help="Keep instances with a higher score.", show_default="the checkpoint's"
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH|REPO",
        help='"embedded", "sam3", a folder, a weights file or a repo id; every machine needs it.',
        show_default=CHECKPOINT_DEFAULT,
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, mps, cuda ...", rich_help_panel=MODEL)]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Pictures encoded together.",
        show_default="8 on an accelerator, 1 on the CPU",
        rich_help_panel=MODEL,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the final table, warnings and errors only.")]


@app.command("run", cls=CommandWithSections)
def run(
    source: Input,
    out: Out,
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    threshold: Threshold = None,
    max_instances: MaxInstances = None,
    quiet: Quiet = False,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    image_size: ImageSize = None,
    batch: Batch = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help='A Ray cluster: host:port, or "auto" for the one that this machine is part of.',
            show_default="this machine",
            rich_help_panel=_PROCESSES,
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Most processes; a cluster that grows may be asked for more than it has room for now.",
            show_default="as many as there is room for",
            rich_help_panel=_PROCESSES,
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="GPUs per process; with a fraction, processes share one.",
            show_default="1 where there are GPUs",
            rich_help_panel=_PROCESSES,
        ),
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Pictures per shard, which is what a file of results holds and what is lost when a process dies.",
            show_default="a 64th of all, 8 to 256",
            rich_help_panel=_PROCESSES,
        ),
    ] = None,
    picture_timeout: Annotated[
        float,
        typer.Option(
            min=1,
            max=86_400,
            metavar="SECONDS",
            help="End a process that finishes no picture for this long. A picture that causes it again fails.",
            rich_help_panel=_PROCESSES,
        ),
    ] = 600,
) -> None:
    """Find the prompts in every picture, and write one row for each picture to OUT.

    The same command continues a run that was stopped or killed.
    """
    from s3seg.commands.bulk.run import Processes
    from s3seg.commands.bulk.run import run as run_bulk

    processes = Processes(
        address=ray_address, actors=actors, gpus=gpus, shard_rows=shard_rows, picture_timeout_s=picture_timeout
    )
    request = {"threshold": threshold, "max_instances": max_instances, "checkpoint": checkpoint}
    raise typer.Exit(
        run_bulk(
            source,
            out,
            prompts=prompts,
            prompt_file=prompt_file,
            options={**request, "dtype": dtype, "image_size": image_size},
            device=device,
            batch_size=batch,
            processes=processes,
            quiet=quiet,
        )
    )


@app.command("status", cls=CommandWithSections)
def status(out: Out) -> None:
    """Show how far the run in OUT is. Exits with 3 while it is not complete."""
    from s3seg.commands.bulk.inspect import show_status

    raise typer.Exit(show_status(out))


@app.command("coco", cls=CommandWithSections)
def coco(out: Out) -> None:
    """Write the results in OUT to standard output as one COCO dataset."""
    from s3seg.commands.bulk.inspect import write_coco

    raise typer.Exit(write_coco(out))


@app.command("estimate", cls=CommandWithSections)
def estimate(
    source: Input,
    prompts: Prompts = None,
    prompt_file: PromptFile = None,
    threshold: Threshold = None,
    max_instances: MaxInstances = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    image_size: ImageSize = None,
    batch: Batch = None,
) -> None:
    """Segment 200 of the pictures in this process, and tell what all of them will take."""
    from s3seg.commands.bulk.inspect import show_estimate

    request = {"threshold": threshold, "max_instances": max_instances, "checkpoint": checkpoint}
    show_estimate(
        source,
        prompts=prompts,
        prompt_file=prompt_file,
        options={**request, "dtype": dtype, "image_size": image_size},
        device=device,
        batch_size=batch,
    )
