"""What the user sees: results on stdout; notes, warnings and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress


class Terminal:
    """Stdout and stderr, each with colours only where it is a terminal (and ``NO_COLOR`` is not set)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)
        self._err = Console(stderr=True, highlight=False, emoji=False)
        self._progress: Progress | None = None

    def show(self, renderable: RenderableType) -> None:
        """Print a result for people, on stdout."""
        with self._out.capture() as captured:
            self._out.print(renderable)
        self.write("".join(line.rstrip(" ") + "\n" for line in captured.get().splitlines()))

    def write(self, text: str) -> None:
        """Print a result for programs, on stdout, as it is."""
        with self._without_progress():
            sys.stdout.write(text)
            sys.stdout.flush()

    def note(self, text: str, *, label: str = "") -> None:
        """Say something that is good to know, on stderr; ``--quiet`` leaves it out."""
        if not self.quiet:
            self._say(label, text, "dim")

    def warn(self, text: str, *, label: str = "warning") -> None:
        """Say something that must be known, on stderr."""
        self._say(label, text, "bold yellow" if label != "error" else "bold red")

    def _say(self, label: str, text: str, style: str) -> None:
        line = Text.assemble((f"{label}: " if label else "", style), (text, "dim" if style == "dim" else ""))
        with self._without_progress():
            self._err.print(line, soft_wrap=not self._err.is_terminal)

    @property
    def progress_console(self) -> Console | None:
        """Stderr, if bars may be drawn there: if it is a terminal, and ``--quiet`` was not given."""
        return None if self.quiet or not self._err.is_terminal else self._err

    @contextmanager
    def progress(self, total: int, doing: str) -> Iterator[Progress | None]:
        """A bar on stderr while pictures are done; None, and no bar, if stderr is no terminal."""
        if self.progress_console is None:
            yield None
            return

        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        many = (BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            *(many if total > 1 else ()),
            console=self.progress_console,
            transient=True,
            redirect_stdout=False,  # it would send results to stderr
            redirect_stderr=False,
        )
        bar.add_task(doing, total=total)
        self._progress = bar
        try:
            with bar:
                yield bar
        finally:
            self._progress = None

    @contextmanager
    def _without_progress(self) -> Iterator[None]:
        """Take the bar away while something is printed: both may be the same screen."""
        bar = self._progress
        if bar is None:
            yield
            return
        bar.stop()
        yield
        bar.start()
