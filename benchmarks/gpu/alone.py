"""Part ``alone``: how long the network takes without a service around it, beside transformers and beside the floor.

The order is that of worth. Compiling comes last, because how long it takes is not known: if time runs out in the middle
of it, nothing else is lost.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from benchmarks.gpu import candidates
from benchmarks.gpu.context import Context
from benchmarks.gpu.goals import GOALS, goals
from benchmarks.gpu.ours import Ours
from benchmarks.gpu.rates import TIMES, Rates
from benchmarks.gpu.report import Step
from benchmarks.gpu.theirs import Theirs
from benchmarks.gpu.timing import free


def run(context: Context) -> None:
    """Measure ours, transformers, single operations, and ours compiled; never two networks in memory at once."""
    dtype = torch.float32 if context.quick else torch.bfloat16
    rates = Rates(context, dtype)
    with torch.inference_mode():
        _run(context, [Step("rates of the card", rates.measure, 5)])
        ours = Ours(context, dtype, rates)
        _run(context, [ours.load(), *ours.plain(), *ours.recorded()])
        ours.network = None
        free(context.device)
        theirs = Theirs(context, dtype, rates)
        _run(context, theirs.steps())
        theirs.model = None
        free(context.device)
        _run(context, candidates.steps(context, dtype))
        free(context.device)
        _run(context, [ours.load(), ours.kernels(), *ours.compiled()])
        ours.network = None
        free(context.device)
        _run(context, [ours.load(), *ours.larger()])


def _run(context: Context, steps: Iterable[Step]) -> None:
    """Run steps, and bring the goals and the plot up to date after each: the process may be ended at any moment."""
    for step in steps:
        context.report.run([step], context.deadline)
        context.report.tables.pop(GOALS, None)  # printed last
        for row in goals(context.report.tables):
            context.report.add(GOALS, **row)
        bars = {f"{row['program']}: {row['what']}": row["ms"] for row in context.report.tables.get(TIMES, [])}
        card = "the CPU, tiny networks" if context.quick else torch.cuda.get_device_name()
        context.report.plot(f"Full SAM 3, random weights, {card}", bars, unit="ms")
