"""The rates of a card that bound every figure, and the rows of the table of times, each beside its floor.

The floor of a figure is the multiplications of the network as published, over the card's measured rate in the same
precision. Ours does fewer of them for a prompt (``docs/explanation/network.md``, "Computing the same for less").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu.context import Context
from benchmarks.gpu.machine import copy_gb_per_s, matmul_tflops
from benchmarks.gpu.timing import measure

IMAGE_TMAC, PROMPT_TMAC = 2.80, 0.208  # of full SAM 3, counted from its layers
TIMES = "Milliseconds"
_SECONDS = 2.5  # for the timed runs of one row


class Rates:
    """The rates that bound every figure."""

    def __init__(self, context: Context, dtype: torch.dtype) -> None:
        self._context, self._dtype = context, dtype
        self._tflops: float | None = None

    def measure(self) -> None:
        """Measure them."""
        device, quick = self._context.device, self._context.quick
        side = 256 if quick else 8192
        self._tflops = matmul_tflops(device, self._dtype, side)
        self._context.report.add(
            "Rates",
            precision=str(self._dtype).removeprefix("torch."),
            matmul_side=side,
            matmul_tflops=self._tflops,
            copy_gb_per_s=copy_gb_per_s(device, 16 if quick else 4096),
        )

    def floor_ms(self, tmac: float) -> float | None:
        """The floor of something; None where the network is a tiny one, or the rate is not known."""
        if self._context.quick or not tmac or self._tflops is None:
            return None
        return 2 * tmac / self._tflops * 1000


@dataclass(frozen=True, slots=True)
class Times:
    """Adds rows to the table of times.

    Attributes:
        context: Where it runs.
        rates: For the floors.
        program: What the rows are called.
    """

    context: Context
    rates: Rates
    program: str

    def add(self, what: str, run: Callable[[], object], *, tmac: float = 0.0, each: int = 1) -> None:
        """Add a row: medians of up to `Context.runs`.

        Args:
            what: What the row is called.
            run: What to time.
            tmac: Its multiplications, 10^12; 0 leaves the floor out.
            each: How many pictures or prompts a run does.
        """
        runs, warmup = (1, 0) if self.context.quick else (self.context.runs, 3)
        measured = measure(
            run, self.context.device, runs=runs, warmup=warmup, seconds=_SECONDS, deadline=self.context.deadline
        )
        floor = self.rates.floor_ms(tmac)
        self.context.report.add(
            TIMES,
            program=self.program,
            what=what,
            ms=measured.milliseconds,
            each_ms=measured.milliseconds / each,
            host_ms=measured.host_ms,
            fastest=measured.fastest,
            slowest=measured.slowest,
            runs=measured.runs,
            floor_ms=floor,
            of_the_rate=None if floor is None else floor / measured.milliseconds,
            peak_mb=measured.peak_mb,
        )
