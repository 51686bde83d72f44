"""The run of `s3seg segment`: pictures in, results to the outputs, and an account of it at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from s3seg.commands.backends import Backend
from s3seg.commands.endings import ERROR, PARTIAL
from s3seg.commands.keys import Request
from s3seg.commands.outputs import Output
from s3seg.commands.pictures import Picture
from s3seg.commands.terminal import Terminal
from s3seg.errors import AuthInvalidError, ForbiddenError, InsufficientCreditsError, PromptError, S3segError

if TYPE_CHECKING:
    from s3seg.client import Client
    from s3seg.inference.segmenter import Segmenter
    from s3seg.results.segmentation import Segmentation

_OF_THE_RUN = (PromptError, AuthInvalidError, ForbiddenError, InsufficientCreditsError)


@dataclass(slots=True)
class Account:
    """What happened so far.

    Attributes:
        done: Pictures that were segmented.
        failed: Pictures, folders and globs that could not be.
        skipped: Pictures that an earlier run has done.
        instances: How many were found.
        milliseconds: Where the time went, by stage.
        hints: Of the results, each once.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    instances: int = 0
    milliseconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    hints: dict[str, None] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or what tells that all or some have failed."""
        if not self.failed:
            return 0
        return PARTIAL if self.done or self.skipped else ERROR

    def add(self, results: Sequence[Segmentation]) -> None:
        """Count the results on one picture."""
        self.done += 1
        self.instances += sum(map(len, results))
        self.milliseconds["decode"] += results[0].timings.get("decode", 0.0)
        self.milliseconds["encode"] += results[0].timings.get("image", 0.0)
        for result in results:
            self.milliseconds["prompts"] += result.timings.get("prompt", 0.0)
            self.milliseconds["masks"] += result.timings.get("masks", 0.0)
            if result.hint:
                self.hints[result.hint] = None


def run(
    pictures: Sequence[Picture],
    request: Request,
    outputs: Sequence[Output],
    *,
    finder: Backend,
    keys: Mapping[str, str],
    resume: bool,
    terminal: Terminal,
    account: Account,
) -> Segmenter | Client | None:
    """Segment the pictures that are not done, and hand the results to the outputs.

    A picture that fails is told, counted, and does not stop the others.

    Returns:
        What found them; None if nothing was left to do, in which case nothing was loaded.

    Raises:
        S3segError: The checkpoint, the prompts or the options cannot be used.
        OSError: An output cannot be written.
    """

    def is_done(picture: Picture) -> bool:
        return resume and all(output.has(picture, keys[str(picture.source)]) for output in outputs)

    left = [picture for picture in pictures if not is_done(picture)]
    account.skipped = len(pictures) - len(left)
    segmenter = None
    if left:
        with terminal.progress(len(left), finder.beginning) as bar:
            start = time.perf_counter()
            segmenter = finder.load(request)
            account.milliseconds["load"] = _since(start)
            if bar:
                bar.update(bar.task_ids[0], description=f"looking for {', '.join(request.prompts) or 'the boxes'}")

            def failed(picture: Picture, err: S3segError) -> None:
                if isinstance(err, _OF_THE_RUN):
                    raise err  # it would be the same for every picture
                account.failed += 1
                terminal.warn(str(err), label="error")
                if bar:
                    bar.advance(bar.task_ids[0])

            for picture, results in _segment(segmenter, left, request, failed):
                start = time.perf_counter()
                for output in outputs:
                    output.add(picture, keys[str(picture.source)], results)
                account.add(results)
                account.milliseconds["write"] += _since(start)
                if bar:
                    bar.advance(bar.task_ids[0])
    if account.done or account.skipped:
        for output in outputs:
            output.finish(complete=not account.failed)
    return segmenter


def _segment(
    segmenter: Segmenter | Client, pictures: Sequence[Picture], request: Request, on_error: ...
) -> Iterator[tuple[Picture, list[Segmentation]]]:
    """The results of all prompts, picture by picture."""
    if request.boxes or request.negative_boxes:
        for picture in pictures:
            try:
                found = cast("Segmenter", segmenter).segment(
                    picture.open(),
                    request.prompts or None,
                    boxes=request.boxes,
                    negative_boxes=request.negative_boxes,
                    threshold=request.threshold,
                    max_instances=request.max_instances,
                )
            except S3segError as err:
                on_error(picture, err)
            else:
                yield picture, found if isinstance(found, list) else [found]
        return
    by_source = {picture.open(): picture for picture in pictures}
    for source, results in segmenter.segment_many(
        by_source,
        list(request.prompts),
        threshold=request.threshold,
        max_instances=request.max_instances,
        on_error=lambda source, err: on_error(by_source[source], err),
    ):
        yield by_source[source], results


def tell(
    account: Account, finder: Backend, loaded: Segmenter | Client | None, written: Sequence[Path], terminal: Terminal
) -> None:
    """Say what was done: by whom, what it knows, where the time went, what was written."""
    if account.skipped:
        terminal.note(f"{_count(account.skipped, 'picture')} done before, skipped")
    if loaded is None:
        return
    if written:
        where = ", ".join(map(str, written)) if len(written) <= 3 else _folders(written)
        found = f"{_count(account.instances, 'instance')} in {_count(account.done, 'picture')}"
        terminal.note(f"{found}; wrote {where}")
    stages = [f"{stage} {_duration(ms)}" for stage, ms in account.milliseconds.items() if ms >= 1]
    terminal.note(" · ".join(stages), label="time")
    label, line = finder.describe(loaded)
    terminal.note(line, label=label)
    for hint in account.hints:
        terminal.warn(hint, label="hint")


def _folders(written: Sequence[Path]) -> str:
    folders = dict.fromkeys(str(path.parent) for path in written)
    return f"{len(written)} files to {', '.join(folders)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _duration(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms"


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000
