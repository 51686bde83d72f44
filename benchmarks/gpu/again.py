"""Part ``again``: the figures that the goals need, in about a minute, and whether faster passes still compute the same.

For a second run after a change: what depends on our code only. Part ``alone`` measures everything else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from benchmarks.gpu.context import Context
from benchmarks.gpu.goals import GOALS, goals
from benchmarks.gpu.ours import COMPILED, EIGHT, RECORDED, Ours
from benchmarks.gpu.pictures import make_jpeg
from benchmarks.gpu.rates import TIMES, Rates
from benchmarks.gpu.report import Step
from benchmarks.gpu.theirs import Theirs
from benchmarks.gpu.timing import free
from s3seg import images
from s3seg.sam3.passes import Detected, Passes

EQUALITY = "Faster passes against eager ones, relative error"
BY_STAGE = "Pixels to RLE with 1 prompt by stage, host ms"
_RUNS = 12
_ROUNDING = {torch.bfloat16: 0.03, torch.float32: 1e-4}  # relative: eager bf16 is 0.015 from fp32
_MASKS = 8


class Again(Ours):
    """What is measured again of our network."""

    def __init__(self, context: Context, dtype: torch.dtype, rates: Rates) -> None:
        super().__init__(context, dtype, rates)
        self._expected: dict[int, tuple[Detected, dict[str, Tensor]]] = {}

    def recorded(self) -> Iterable[Step]:
        """As a user gets it by default on CUDA."""
        yield Step("eager results to compare with", self._eager, 2)
        yield Step("recorded, begin", partial(self._use, None), 1)
        yield from self._prepared(RECORDED, seconds=3)
        yield Step("recorded, passes", partial(self._passes, RECORDED), 2)
        yield Step("recorded, by stage", partial(self._by_stage, RECORDED), 2)
        yield Step("recorded, against eager", partial(self._compare, RECORDED), 2)
        yield Step("recorded, waits for the device", self._waits, 2)
        yield Step("recorded, kernels", self._kernels, 3)
        yield Step("recorded, end", self._forget, 1)

    def compiled(self) -> Iterable[Step]:
        """Compiling takes most of the time: first what goals ask for."""
        yield Step("compiled, begin", partial(self._use, "eager" if self._context.quick else "inductor"), 2)
        steps = {step.name: step for step in self._prepared(COMPILED, seconds=12)}
        yield steps[f"{COMPILED}, 1 prompt"]
        yield Step("compiled, passes", partial(self._passes, COMPILED), 2)
        yield Step("compiled, against eager", partial(self._compare, COMPILED, 1), 2)
        yield steps[f"{COMPILED}, 8 images"]
        yield steps[f"{COMPILED}, 1 image"]
        yield replace(steps[f"{COMPILED}, 8 prompts"], seconds=20)

    def _inputs(self, prompts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels of one image, and as many texts, on the device."""
        predictor, generator = self.network.predictor, torch.Generator().manual_seed(prompts)
        side = predictor.image_size
        pixels = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=generator)
        text, valid = predictor._pad([predictor.encode_texts([word])[0] for word in EIGHT[:prompts]])
        if valid is None:
            valid = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        return pixels.to(text.device), text, valid

    def _run(self, prompts: int, queries: Tensor | None) -> tuple[Detected, dict[str, Tensor]]:
        """Run the three passes, the masks for the queries given, so that two orders of equal scores do not matter."""
        passes = self.network.predictor._passes
        pixels, text, valid = self._inputs(prompts)
        image = passes.encode(pixels)
        found = passes.detect(image, text, valid, None)
        chosen = found if queries is None else replace(found, queries=queries)
        masks = passes.masks(image, chosen, _MASKS)
        count = found.queries.shape[1]
        return found, {
            "image tokens": image.tokens,
            "finest lateral": image.laterals[-1],
            "prompted tokens": found.encoded,
            "presence": found.packed[:, 0],
            "scores, sorted": found.packed[:, 1 : 1 + count],
            "box sides, sorted": found.packed[:, 1 + count :].unflatten(1, (count, 4)).sort(dim=1).values,
            "mask logits": masks,
        }

    def _eager(self) -> None:
        predictor = self.network.predictor
        predictor._passes = _Padded(predictor.model, predictor._passes.constants)
        for prompts in (1, 8):
            self._expected[prompts] = self._run(prompts, None)

    def _compare(self, program: str, *prompts: int) -> None:
        for count in prompts or (1, 8):
            reference, expected = self._expected[count]
            _, found = self._run(count, reference.queries)
            for what, tensor in expected.items():
                error = ((found[what].float() - tensor.float()).norm() / tensor.float().norm()).item()
                self._context.report.add(
                    EQUALITY,
                    program=program,
                    prompts=count,
                    what=what,
                    relative=error,
                    ok=error <= _ROUNDING[self._dtype],
                )

    def _passes(self, program: str) -> None:
        """Each pass by itself: what is left of a prompt is the host's part."""
        passes, times = self.network.predictor._passes, self._times(program)
        pixels, text, valid = self._inputs(1)
        image = passes.encode(pixels)
        found = passes.detect(image, text, valid, None)
        times.add("pass: detect, 1 prompt", lambda: passes.detect(image, text, valid, None))
        times.add("pass: masks, 1 prompt", lambda: passes.masks(image, found, _MASKS))

    def _by_stage(self, program: str) -> None:
        network = self.network
        pixels = images.load(make_jpeg(quick=self._context.quick)).pixels
        size = pixels.shape[:2]
        rows: dict[str, list[float]] = {}
        for _ in range(3 if self._context.quick else 23):
            marks = [time.perf_counter()]
            picture = network.resize(pixels, size)
            marks.append(time.perf_counter())
            encoded = network.encode([picture])[0]
            marks.append(time.perf_counter())
            found = network.predict([(encoded, EIGHT[0])])[0]
            marks.append(time.perf_counter())
            found.rles(size)
            marks.append(time.perf_counter())
            names = ("resize", "image, launched", "prompt, image waited for", "masks, RLE")
            for name, begin, end in zip(names, marks, marks[1:], strict=False):
                rows.setdefault(name, []).append((end - begin) * 1000)
        for name, taken in rows.items():
            taken = taken[3:] or taken
            self._context.report.add(BY_STAGE, program=program, stage=name, ms=median(taken), slowest=max(taken))


class _Padded(Passes):
    """Eager passes over texts that are padded as those of recorded passes are."""

    def tokens(self, count: int) -> int:
        return 7


def run(context: Context) -> None:
    """Measure ours recorded, transformers from pixels to masks, and ours compiled."""
    context = replace(context, runs=_RUNS)
    dtype = torch.float32 if context.quick else torch.bfloat16
    rates = Rates(context, dtype)
    with torch.inference_mode():
        ours = Again(context, dtype, rates)
        _run(context, [Step("rates of the card", rates.measure, 2), ours.load(), *ours.recorded()])
        ours.network = None
        free(context.device)
        theirs = Theirs(context, dtype, rates)
        _run(context, list(theirs.steps())[:2])
        theirs.model = None
        free(context.device)
        _run(context, [ours.load(), *ours.compiled()])


def _run(context: Context, steps: Sequence[Step]) -> None:
    """Run steps, and keep the tables that decide at the end of what is printed."""
    tables = context.report.tables
    card = "the CPU, tiny networks" if context.quick else torch.cuda.get_device_name()
    for step in steps:
        context.report.run([step], context.deadline)
        for last in (TIMES, EQUALITY, GOALS):
            rows = tables.pop(last, [])
            for row in goals(tables) if last == GOALS else rows:
                context.report.add(last, **row)
        bars = {f"{row['program']}: {row['what']}": row["ms"] for row in tables.get(TIMES, [])}
        context.report.plot(f"Full SAM 3, random weights, {card}", bars, unit="ms")
