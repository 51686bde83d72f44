"""``s3seg geotiff``: find things in a GeoTIFF raster, and write them with their coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from s3seg.commands.segmenter_options import MODEL, Checkpoint, Device, Dtype, MaxInstances, MorePrompts, Thresholds
from s3seg.errors import InvalidRequestError


def geotiff(
    raster: Annotated[Path, typer.Argument(metavar="RASTER", help="A georeferenced GeoTIFF file.", show_default=False)],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to look for.", show_default=False)],
    prompts: MorePrompts = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Where to write GeoJSON.", show_default="standard output"),
    ] = None,
    crs: Annotated[
        Literal["wgs84", "raster"],
        typer.Option(help="Coordinates: longitude and latitude (RFC 7946), or those of the raster."),
    ] = "wgs84",
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|PIXELS",
            help="Side of the windows that are looked at, up to 4096; larger than the things, which should be 5 % "
            "of it or more. auto is the side of the network's input.",
        ),
    ] = "auto",
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B|BAND",
            help="Bands to read, from 1.",
            show_default="those marked as red, green and blue, else 1,2,3, else 1",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Values that become black and white.",
            show_default="none for 8 bits, else the 2nd and 98th percentile",
        ),
    ] = None,
    threshold: Thresholds = None,
    max_instances: MaxInstances = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, metavar="PIXELS", help="How far outlines may move, to leave out vertices."),
    ] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Thresholds that `s3seg calibrate --tile` chose.", rich_help_panel=MODEL),
    ] = None,
) -> None:
    """Find every instance of the prompts in a GeoTIFF raster, and write GeoJSON.

    Reads the raster window by window, so it may be larger than memory.
    """
    from s3seg.commands.segment.options import parse_thresholds, parse_tile
    from s3seg.commands.terminal import Terminal
    from s3seg.inference.segmenter import Segmenter
    from s3seg.integrations.geotiff import Raster, check_coordinates, geojson, segment_geotiff
    from s3seg.results.files import json_text, write_atomically
    from s3seg.tasks.prompts import normalize_prompts
    from s3seg.tasks.tiles import checked_tile

    asked = list(dict.fromkeys(normalize_prompts([prompt, *(prompts or [])])))
    chosen_bands = None if bands is None else _parse_bands(bands)
    limits = None if scale is None else _parse_scale(scale)
    side = checked_tile(parse_tile(tile)) or "auto"
    if calibration and threshold:
        raise InvalidRequestError("--calibration has a threshold for each prompt; leave out --threshold")
    thresholds = "calibrated" if calibration else parse_thresholds(threshold or [], asked)
    with Raster(raster, bands=chosen_bands, scale=limits) as opened:
        check_coordinates(opened, crs)  # before the model is loaded
    if output is not None:
        _prepare(output, raster)
    terminal = Terminal(quiet=quiet)
    segmenter = Segmenter(checkpoint, device=device, dtype=dtype, calibration=calibration)
    with terminal.progress(100, "looking into windows") as bar:

        def show(done: int, total: int) -> None:
            if bar:
                bar.update(bar.task_ids[0], completed=done, total=total)

        results = segment_geotiff(
            segmenter,
            raster,
            asked,
            tile=side,
            threshold=thresholds,
            max_instances=max_instances,
            bands=chosen_bands,
            scale=limits,
            on_tiles=show,
        )
    text = json_text(geojson(results, crs=crs, tolerance=tolerance))
    if output is None:
        terminal.write(text)
    else:
        write_atomically(output, text)
    first = results[0]
    found = ", ".join(f"{result.prompt}: {len(result)}" for result in results)
    scaled = "as they are" if first.scale is None else "from {:g} to {:g}".format(*first.scale)
    terminal.note(f"{found}; {'wrote ' + str(output) if output else 'GeoJSON on standard output'}")
    terminal.note(
        f"{first.tiles} windows; bands {first.bands[0]}, {first.bands[1]}, {first.bands[2]}, values {scaled}",
        label="raster",
    )
    model = segmenter.model
    terminal.note(f"{model.name} {model.version} on {model.device} in {model.dtype}", label="checkpoint")


def _prepare(output: Path, raster: Path) -> None:
    """Make the folder of the output; raise if it is a folder itself, or would replace the raster."""
    if output.is_dir():
        raise InvalidRequestError(f"{output} is a folder; name a file, such as {output / raster.stem}.geojson")
    if output.exists() and output.samefile(raster):
        raise InvalidRequestError(f"{output} is the raster and will not be overwritten; choose another output path")
    output.parent.mkdir(parents=True, exist_ok=True)


def _parse_bands(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise InvalidRequestError(f"--bands is one number or three, such as 4,3,2; got {text!r}") from None


def _parse_scale(text: str) -> tuple[float, float]:
    try:
        low, high = (float(one) for one in text.split(","))
    except ValueError:
        raise InvalidRequestError(f"--scale is two numbers, such as 0,3000; got {text!r}") from None
    return low, high
