"""The output for people: a table on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3seg.commands.escaping import one_line
from s3seg.commands.segment.pictures import Picture
from s3seg.commands.terminal import Terminal
from s3seg.results.segmentation import Segmentation

_COLUMNS = (("#", 3), ("prompt", 0), ("score", 15), ("x1", 6), ("y1", 6), ("x2", 6), ("y2", 6), ("area", 7))
_BAR = 8
_EIGHTHS = " ▏▎▍▌▋▊▉"


class TableOutput:
    """A table for each picture on stdout."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._first = True

    def has(self, picture: Picture, key: str) -> bool:
        """Return False: stdout cannot be resumed."""
        return False

    def add(self, picture: Picture, key: str, results: Sequence[Segmentation]) -> None:
        """Print the table of a picture."""
        if not self._first:
            self._terminal.show("")
        self._terminal.show(_table(results, header=self._first))
        self._first = False

    def finish(self, *, complete: bool) -> None:
        """Do nothing."""


def _table(results: Sequence[Segmentation], *, header: bool) -> RenderableType:
    """The picture's name and size, then a row for each instance, the best of each prompt first.

    Columns have the same width for every picture, so that the tables of a run line up.
    """
    height, width = results[0].size
    heading = Text.assemble((one_line(results[0].source or "picture"), "bold"), (f"  {width} × {height}", "dim"))
    table = Table(box=None, show_header=header, header_style="dim", padding=(0, 1), pad_edge=True)
    prompt_width = max(6, *(len(_prompt(result)) for result in results))
    for name, minimum in _COLUMNS:
        left = name in ("prompt", "score")
        table.add_column(
            name,
            justify="left" if left else "right",
            min_width=prompt_width if name == "prompt" else minimum,
            overflow="fold" if name == "prompt" else "ellipsis",
            no_wrap=name != "prompt",
        )
    for cells in _rows(results):
        table.add_row(*cells)
    return Group(heading, table)


def _rows(results: Sequence[Segmentation]) -> Iterator[list[Text]]:
    for result in results:
        if not len(result):
            yield [Text(""), Text(_prompt(result), "dim"), Text("not found", "dim")]
        for k, instance in enumerate(result, start=1):
            box = [Text(f"{side:.0f}") for side in instance.box]
            share = instance.area / (result.size[0] * result.size[1])
            yield [
                Text(str(k), "dim"),
                Text(_prompt(result)),
                _score(instance.score),
                *box,
                Text(f"{share:.1%}"),
            ]


def _score(score: float) -> Text:
    eighths = round(score * _BAR * 8)
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    style = "green" if score >= 0.75 else "yellow" if score >= 0.5 else "red"
    return Text.assemble(f"{score:.2f}  ", (bar, style))


def _prompt(result: Segmentation) -> str:
    return one_line(result.prompt or "(boxes)")
