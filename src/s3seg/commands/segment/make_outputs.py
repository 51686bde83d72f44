"""From the output options to the outputs of a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3seg.commands.segment import formats
from s3seg.commands.segment.documents import DocumentFile, DocumentStdout, JsonlFile, JsonlStdout
from s3seg.commands.segment.formats import DocumentFormat, PictureFormat
from s3seg.commands.segment.journal import Journal
from s3seg.commands.segment.output_files import OutputFiles
from s3seg.commands.segment.output_options import CLASSES, Format, MaskKind, OutputOptions, Target
from s3seg.commands.segment.outputs import FolderOutput, Output, SingleOutput
from s3seg.commands.segment.table import TableOutput
from s3seg.commands.terminal import Terminal


def _documents(options: OutputOptions) -> dict[Format, DocumentFormat]:
    coco = functools.partial(
        formats.coco_document,
        polygons=options.polygons,
        tolerance=options.tolerance,
        base_names=options.base_names,
    )
    return {
        Format.JSON: formats.json_document,
        Format.COCO: coco,
        Format.CSV: formats.csv_document,
        Format.COUNTS: formats.counts_document,
    }


def _per_picture(options: OutputOptions) -> dict[Format, PictureFormat]:
    return {
        Format.JSON: formats.json_files,
        Format.GEOJSON: functools.partial(formats.geojson, tolerance=options.tolerance),
        Format.YOLO: functools.partial(formats.yolo, tolerance=options.tolerance),
    }


def make_outputs(
    options: OutputOptions,
    prompts: Sequence[str],
    *,
    keys: Mapping[str, str],
    resume: bool,
    files: OutputFiles,
    journals: Mapping[Path, Journal],
    terminal: Terminal,
) -> list[Output]:
    """Make the outputs; without any option, a table on stdout.

    Args:
        options: What to write, and where.
        prompts: The prompts of the run, in order.
        keys: The resume keys of its pictures, by their sources.
        resume: Whether to continue the files of an earlier run.
        files: Writes the files.
        journals: The journal of each of ``options.folders``.
        terminal: Stdout.

    Raises:
        InvalidRequestError: A path is an input picture, or holds results of another request.
        OSError: A path cannot be written.
    """
    documents, picture_formats = _documents(options), _per_picture(options)

    def per_picture(target: Target, kind: str, render: PictureFormat) -> Output:
        if target.is_folder:
            return FolderOutput(target.path, kind, render, files=files, journal=journals[target.path])
        return SingleOutput(target.path, render, files=files, terminal=terminal)

    def on_stdout(format_: Format) -> Output:
        if format_ is Format.JSONL:
            return JsonlStdout(terminal)
        if document := documents.get(format_):
            return DocumentStdout(document, terminal=terminal)
        return SingleOutput(None, picture_formats[format_], files=files, terminal=terminal)

    def formatted(format_: Format, target: Target) -> Output:
        if format_ in picture_formats and (target.is_folder or format_ not in documents):
            if format_ is Format.YOLO and target.is_folder:
                classes = "".join(f"{prompt}\n" for prompt in prompts or ["object"])
                files.write(target.path / f"{CLASSES}.txt", classes)
            outlines = format_ in (Format.YOLO, Format.GEOJSON)
            kind = f"{format_} {options.tolerance:g}" if outlines and options.tolerance else str(format_)
            return per_picture(target, kind, picture_formats[format_])
        lines = len(prompts) or 1
        if format_ is Format.JSONL:
            return JsonlFile(target.path, keys, prompts=lines, resume=resume, files=files)
        return DocumentFile(target.path, documents[format_], keys, prompts=lines, resume=resume, files=files)

    outputs: list[Output] = []
    if options.overlay:
        suffix = ".png" if options.overlay.is_folder else options.overlay.path.suffix.lower()
        outputs.append(per_picture(options.overlay, "overlay", functools.partial(formats.overlay, suffix=suffix)))
    if options.mask:
        kind = "mask" if options.mask_kind is MaskKind.LABELS else f"mask {options.mask_kind}"
        outputs.append(per_picture(options.mask, kind, functools.partial(formats.mask, kind=options.mask_kind)))
    if options.crops:
        outputs.append(per_picture(options.crops, "crops", formats.crops))
    if options.format:
        output = options.output
        outputs.append(on_stdout(options.format) if output is None else formatted(options.format, output))
    return outputs or [TableOutput(terminal)]
