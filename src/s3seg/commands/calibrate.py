"""``s3seg calibrate``: choose a threshold for each prompt on a few labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3seg.commands.segmenter_options import Checkpoint, Device

if TYPE_CHECKING:
    from s3seg.inference.calibration import Calibration


def calibrate(
    labels: Annotated[
        list[str],
        typer.Argument(
            metavar="COCO|INPUT...",
            help="A COCO dataset of instances; or pictures (files, folders, globs), with --masks and --prompt.",
            show_default=False,
        ),
    ],
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of label maps, as --mask of `s3seg segment` writes them: NAME.PROMPT.mask.png, or NAME.png.",
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="What is labelled in the masks; repeatable."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the pictures of a COCO dataset.", show_default="that of the file"),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Where to save the calibration.")
    ] = Path("calibration.json"),
    plot: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Draw precision, recall and F1 over the threshold (PNG).")
    ] = None,
    checkpoint: Checkpoint = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="auto|PIXELS",
            help="Also look into tiles, as `s3seg segment --tile` will with this calibration.",
            show_default="whole pictures only",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Choose a threshold for each prompt on a few labelled pictures.

    Takes the threshold with the highest F1, and prints what it gives. Label everything that a prompt
    names in each picture; ten to fifty instances are a start. Then: s3seg segment --calibration FILE.
    """
    from s3seg.commands.labelled import from_coco, from_masks
    from s3seg.commands.segment.options import parse_tile
    from s3seg.commands.terminal import Terminal
    from s3seg.errors import InvalidRequestError
    from s3seg.inference.calibration import calibrate as choose
    from s3seg.inference.calibration_plot import plot as draw
    from s3seg.inference.segmenter import Segmenter
    from s3seg.results.files import write_atomically
    from s3seg.tasks.prompts import normalize_prompts
    from s3seg.tasks.tiles import checked_tile

    if masks is None and (prompts or len(labels) > 1):
        raise InvalidRequestError("one COCO dataset has pictures and prompts; for a folder of masks, add --masks")
    if masks is not None and not prompts:
        raise InvalidRequestError("--masks needs --prompt: what is labelled in the masks")
    if plot is not None and plot.suffix.lower() != ".png":
        raise InvalidRequestError(f"--plot writes .png, not {plot}")
    if masks is None:
        labelled = from_coco(Path(labels[0]), root)
    else:
        labelled = from_masks(labels, masks, list(dict.fromkeys(normalize_prompts(prompts or []))))
    terminal = Terminal()
    size = checked_tile(parse_tile(tile))
    segmenter = Segmenter(checkpoint, device=device)
    with terminal.progress(len(labelled), "calibrating") as bar:

        def advance() -> None:
            if bar:
                bar.advance(bar.task_ids[0])

        pairs = [(one.picture, one.truth) for one in labelled]
        calibration = choose(segmenter, pairs, tile=size, on_picture=advance)
    calibration.save(output)
    if plot is not None:
        import io

        buffer = io.BytesIO()
        draw(calibration).save(buffer, format="PNG")
        write_atomically(plot, buffer.getvalue())
    terminal.write(_table(calibration, segmenter.metadata.threshold))
    with_tiles = "" if size is None else f" --tile {size}"
    terminal.note(f"{output}; use it with: s3seg segment ... --calibration {output}{with_tiles}", label="saved")


def _table(calibration: Calibration, default: float) -> str:
    """Return a line for each prompt: its threshold, and F1, precision and recall with it and with the default."""
    lines = ["prompt\tthreshold\tF1\tprecision\trecall\tlabelled\tpictures\tF1 at the checkpoint's threshold\n"]
    for prompt, curve in calibration.curves.items():
        best, before = curve.at(curve.best), curve.at(default)
        numbers = "\t".join(f"{value:.3f}" for value in (curve.best, *best))
        lines.append(f"{prompt}\t{numbers}\t{curve.labelled}\t{curve.pictures}\t{before[0]:.3f} at {default:.2f}\n")
    return "".join(lines)
