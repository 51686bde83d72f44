"""Output to the user: results on stdout; notes, warnings and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from s3seg.commands.escaping import as_utf8, printable

if TYPE_CHECKING:
    from rich.progress import Progress


class Terminal:
    """Writes to stdout and stderr, in colour only on a terminal and if ``NO_COLOR`` is not set.

    Args:
        quiet: Leave out notes and progress.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)
        self._err = Console(stderr=True, highlight=False, emoji=False)
        self._progress: Progress | None = None

    def show(self, renderable: RenderableType) -> None:
        """Print a result for people on stdout, such as a table."""
        with self._out.capture() as captured:
            self._out.print(renderable)
        self.write("".join(line.rstrip(" ") + "\n" for line in captured.get().splitlines()))

    def write(self, text: str) -> None:
        """Write a result for programs to stdout, unchanged but for what UTF-8 cannot store."""
        with self._without_progress():
            sys.stdout.write(as_utf8(text))
            sys.stdout.flush()

    def note(self, text: str, *, label: str = "") -> None:
        """Print information on stderr, unless quiet."""
        if not self.quiet:
            self._print_labelled(label, text, "dim")

    def warn(self, text: str, *, label: str = "warning") -> None:
        """Print a warning on stderr, or an error with the label "error"."""
        self._print_labelled(label, text, "bold yellow" if label != "error" else "bold red")

    def _print_labelled(self, label: str, text: str, style: str) -> None:
        line = Text.assemble((f"{label}: " if label else "", style), (printable(text), "dim" if style == "dim" else ""))
        with self._without_progress():
            self._err.print(line, soft_wrap=not self._err.is_terminal)

    @property
    def progress_console(self) -> Console | None:
        """The console for progress bars; None if stderr is not a terminal, or if quiet."""
        return None if self.quiet or not self._err.is_terminal else self._err

    @contextmanager
    def progress(self, total: int, doing: str) -> Iterator[Progress | None]:
        """Show a progress bar on stderr. Yields None, and shows none, where `progress_console` is None.

        Args:
            total: Steps until the bar is full; with 1 only a spinner is shown.
            doing: The description beside the bar.
        """
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
            redirect_stdout=False,  # results must stay on stdout
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
        """Hide the bar while something is printed: stdout and stderr may be the same terminal."""
        bar = self._progress
        if bar is None:
            yield
            return
        bar.stop()
        yield
        bar.start()
