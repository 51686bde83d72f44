"""One run of ``s3seg segment``: pictures in, results to the outputs, a summary at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from s3seg.commands.errors import ERROR, PARTIAL
from s3seg.commands.escaping import one_line
from s3seg.commands.segment.backends import Backend, choose_backend
from s3seg.commands.segment.journal import Journal
from s3seg.commands.segment.make_outputs import make_outputs
from s3seg.commands.segment.options import Request, SegmentOptions, several_things_advice
from s3seg.commands.segment.output_files import OutputFiles
from s3seg.commands.segment.outputs import Output
from s3seg.commands.segment.pictures import LeftOutFiles, Picture, checked, find_pictures
from s3seg.commands.segment.resume_keys import resume_keys
from s3seg.commands.terminal import Terminal
from s3seg.errors import (
    AuthInvalidError,
    ForbiddenError,
    InferenceError,
    InsufficientCreditsError,
    InvalidRequestError,
    PromptError,
    S3segError,
)
from s3seg.inference.clock import milliseconds_since
from s3seg.results.combine import without_overlaps
from s3seg.results.hints import Hint

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.inference.concepts import Concept
    from s3seg.inference.segmenter import Segmenter
    from s3seg.results.segmentation import Segmentation

_SHOWN_NOTES = 10
_ABOUT_THE_CHECKPOINT = ("photograph", "unknown_words")
_SAME_FOR_EVERY_PICTURE = (PromptError, AuthInvalidError, ForbiddenError, InsufficientCreditsError)


@dataclass(slots=True)
class RunSummary:
    """What a run has done so far.

    Attributes:
        done: Pictures that were segmented.
        failed: Pictures, folders and globs that failed.
        skipped: Pictures that an earlier run had finished.
        instances: Instances that were found.
        milliseconds: Time spent, by stage.
        hints: The hints of the results, each with the names of its pictures.
        notes: What was lost in reading pictures, with the names of the pictures.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    instances: int = 0
    milliseconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    hints: dict[Hint, dict[str, None]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or the exit code for a run in which some or all pictures failed."""
        if not self.failed:
            return 0
        return PARTIAL if self.done or self.skipped else ERROR

    def add(self, results: Sequence[Segmentation]) -> None:
        """Count the results of one picture."""
        self.done += 1
        self.instances += sum(map(len, results))
        self.milliseconds["decode"] += results[0].timings.get("decode", 0.0)
        self.milliseconds["encode"] += results[0].timings.get("image", 0.0)
        for note in results[0].notes:
            self.notes.setdefault(note, []).append(results[0].source or "picture")
        for result in results:
            self.milliseconds["prompts"] += result.timings.get("prompt", 0.0)
            self.milliseconds["masks"] += result.timings.get("masks", 0.0)
            for hint in result.hints:
                if hint.kind != "several_things":  # the command has its own for these, which shows what to type
                    self.hints.setdefault(hint, {})[result.source or "picture"] = None


def run(options: SegmentOptions) -> int:
    """Segment the pictures, write the outputs, and print a summary.

    A picture that fails is reported and counted, and does not stop the others.

    Returns:
        The exit code.

    Raises:
        S3segError: The options, the prompts or the checkpoint cannot be used, or the service refuses.
        OSError: An output cannot be written.
    """
    terminal = Terminal(quiet=options.quiet)
    summary = RunSummary()
    journals = {folder: Journal(folder) for folder in options.output.folders}

    def input_failed(err: InvalidRequestError) -> None:
        summary.failed += 1
        terminal.warn(str(err), label="error")

    left_out = LeftOutFiles()
    pictures = find_pictures(
        options.inputs,
        recursive=options.recursive,
        exclude=lambda path: any(journal.owns(path) for journal in journals.values()),
        on_error=input_failed,
        left_out=left_out,
        reserved=options.output.reserved_names,
    )
    for note in left_out.notes():
        terminal.note(note)
    if not pictures:
        if not summary.failed:
            raise InvalidRequestError("no picture to segment: all that were found are outputs of an earlier run")
        return summary.exit_code
    request = options.request
    backend = choose_backend(
        options.model,
        boxes=request.has_boxes,
        clicks=request.clicks is not None,
        concept=request.concept is not None,
        local=request.local_options,
    )
    concept = None if request.concept is None else _load_concept(request.concept)
    options.output.check_counts(pictures=len(pictures), prompts=len(request.prompts))
    pictures = checked(pictures, on_error=input_failed)  # reported before a model is loaded
    if not pictures:
        return summary.exit_code
    keys = resume_keys(pictures, request, options.model, backend)
    files = OutputFiles(pictures)
    outputs = make_outputs(
        options.output,
        request.prompts,
        keys=keys,
        resume=options.resume,
        files=files,
        journals=journals,
        terminal=terminal,
    )
    todo = [
        picture
        for picture in pictures
        if not (options.resume and all(output.has(picture, keys[str(picture.source)]) for output in outputs))
    ]
    summary.skipped = len(pictures) - len(todo)
    try:
        model = (
            _segment(todo, request, concept, outputs, backend=backend, keys=keys, terminal=terminal, summary=summary)
            if todo
            else None
        )
        if summary.done or summary.skipped:
            for output in outputs:
                output.finish(complete=not summary.failed)
    except KeyboardInterrupt:
        advice = "; run the same command with --resume to continue" if options.output.resumable else ""
        terminal.warn(f"after {summary.done + summary.skipped} of {len(pictures)} pictures{advice}", label="stopped")
        raise
    if summary.skipped:
        terminal.note(f"{_count(summary.skipped, 'picture')} skipped, done by an earlier run")
    if model is not None:
        for advice in several_things_advice(options.inputs, request.prompts).values():
            summary.hints[Hint("several_things", advice)] = {}
        _print_summary(summary, files, terminal, used=backend.describe(model))
        for hint, names in summary.hints.items():
            terminal.warn(_hint(hint, list(names), summary, at_service=options.model.url is not None), label="hint")
    return summary.exit_code


def _load_concept(path: str) -> Concept:
    from s3seg.inference.concepts import Concept

    return Concept.load(path)


def _segment(
    pictures: Sequence[Picture],
    request: Request,
    concept: Concept | None,
    outputs: Sequence[Output],
    *,
    backend: Backend,
    keys: Mapping[str, str],
    terminal: Terminal,
    summary: RunSummary,
) -> Segmenter | Client:
    """Load the model, and hand the results of each picture to the outputs. Returns the model."""
    with terminal.progress(len(pictures), backend.loading) as bar:

        def advance() -> None:
            if bar:
                bar.advance(bar.task_ids[0])

        def picture_failed(err: S3segError) -> None:
            if isinstance(err, _SAME_FOR_EVERY_PICTURE):
                raise err
            summary.failed += 1
            terminal.warn(str(err), label="error")
            advance()

        start = time.perf_counter()
        model = backend.load()
        summary.milliseconds["load"] = milliseconds_since(start)
        if bar:
            bar.update(
                bar.task_ids[0], description=f"looking for {one_line(', '.join(request.prompts)) or 'what was shown'}"
            )
        if concept is not None:
            cast("Segmenter", model).require_own(concept)
        for picture, results in _results(model, pictures, request, concept, picture_failed):
            start = time.perf_counter()
            if not request.overlaps:
                results = without_overlaps(results)
            for output in outputs:
                output.add(picture, keys[str(picture.source)], results)
            summary.add(results)
            summary.milliseconds["write"] += milliseconds_since(start)
            advance()
    return model


def _results(
    model: Segmenter | Client,
    pictures: Sequence[Picture],
    request: Request,
    concept: Concept | None,
    on_error: Callable[[S3segError], None],
) -> Iterator[tuple[Picture, list[Segmentation]]]:
    """Yield the results of all prompts, picture by picture."""
    if (clicks := request.clicks) is not None:
        for picture in pictures:
            try:
                labels = [int(label) for label in clicks.labels]
                result = model.click(picture.open(), clicks.points, labels, box=clicks.box)
            except (S3segError, TimeoutError) as err:
                on_error(err if isinstance(err, S3segError) else InferenceError(f"{picture.name}: {err}"))
            else:
                yield picture, [result]
        return
    if request.has_boxes or concept is not None:
        for picture in pictures:
            try:
                results = cast("Segmenter", model).segment(  # `choose_backend` refuses boxes for a service
                    picture.open(),
                    concept or request.prompts or None,
                    boxes=request.boxes,
                    negative_boxes=request.negative_boxes,
                    threshold=request.threshold,
                    max_instances=request.max_instances,
                )
            except S3segError as err:
                on_error(err)
            else:
                yield picture, results if isinstance(results, list) else [results]
        return
    by_source = {picture.open(): picture for picture in pictures}
    for source, results in model.segment_many(
        by_source,
        list(request.prompts),
        threshold=cast("float | None", request.threshold),  # `choose_backend` refuses others for a service
        max_instances=request.max_instances,
        tile=request.tile,
        on_error=lambda source, err: on_error(err),
    ):
        yield by_source[source], results


def _print_summary(summary: RunSummary, files: OutputFiles, terminal: Terminal, *, used: tuple[str, str]) -> None:
    """Print what was found and written, where the time went, and which model was used."""
    if files.written:
        where = ", ".join(map(str, files.written)) if len(files.written) <= 3 else _folders(files.written)
        found = f"{_count(summary.instances, 'instance')} in {_count(summary.done, 'picture')}"
        terminal.note(f"{found}; wrote {where}")
    for note, pictures in [*summary.notes.items()][:_SHOWN_NOTES]:
        terminal.note(f"{_names(pictures)}: {note}")
    if len(summary.notes) > _SHOWN_NOTES:
        terminal.note(f"... and {len(summary.notes) - _SHOWN_NOTES} more notes on pictures")
    stages = [f"{stage} {_duration(ms)}" for stage, ms in summary.milliseconds.items() if ms >= 1]
    terminal.note(" · ".join(stages), label="time")
    label, description = used
    terminal.note(description, label=label)


def _hint(hint: Hint, pictures: Sequence[str], summary: RunSummary, *, at_service: bool) -> str:
    """Return the line that shows a hint once for all the pictures that it is about."""
    which = f"{_names(pictures)}: " if hint.kind == "photograph" and summary.done > 1 else ""
    where = ", on the machine of the service" if at_service and hint.kind in _ABOUT_THE_CHECKPOINT else ""
    return f"{which}{hint.text}{where}"


def _names(pictures: Sequence[str]) -> str:
    more = f" and {len(pictures) - 3} more" if len(pictures) > 3 else ""
    return f"{', '.join(pictures[:3])}{more}"


def _folders(written: Sequence[Path]) -> str:
    folders = dict.fromkeys(str(path.parent) for path in written)
    return f"{len(written)} files to {', '.join(folders)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _duration(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms"
