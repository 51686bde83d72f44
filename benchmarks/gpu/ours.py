"""Measurements of our network: as it is, recorded as CUDA graphs, and compiled; and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.context import Context
from benchmarks.gpu.models import parameters_mb
from benchmarks.gpu.network import INSTANCES, RandomNetwork
from benchmarks.gpu.pictures import PROMPTS, make_jpeg
from benchmarks.gpu.rates import IMAGE_TMAC, PROMPT_TMAC, Rates, Times
from benchmarks.gpu.report import Step
from benchmarks.gpu.timing import count_waits, free, kernels
from s3seg import images
from s3seg.inference.stages import ResizedImage
from s3seg.sam3.compiled import INSTANCES as MASKS
from s3seg.sam3.compiled import TEXT_LENGTHS, CompiledPasses
from s3seg.sam3.predictor import BoxPrompt, Query

EIGHT = (PROMPTS * 2)[:8]
OURS, RECORDED, COMPILED = "s3seg", "s3seg recorded", "s3seg compiled"
WAITS = "Waits for the device"
BOX = BoxPrompt((0.4, 0.5, 0.3, 0.6), positive=True)


class Ours:
    """Measurements of our network.

    The steps are methods that give them in order; `load` comes before all others, and `compiled` after all others,
    because it replaces the layers of the network.
    """

    def __init__(self, context: Context, dtype: torch.dtype, rates: Rates) -> None:
        self._context, self._dtype, self._rates = context, dtype, rates
        self.network: Any = None

    def load(self) -> Step:
        """Make the weights on the device."""
        return Step("ours, weights", self._load, 8)

    def plain(self) -> Iterable[Step]:
        """What runs without anything being prepared."""
        yield from self._images(OURS, (1, 8))
        yield Step("ours, prompts", self._prompts, 6)
        yield Step("ours, 1 prompt from JPEG to RLE", partial(self._end_to_end, OURS, 1), 4)
        yield Step("ours, 8 prompts from pixels to RLE", partial(self._end_to_end, OURS, 8), 3)
        yield Step("ours, on the CPU", self._on_the_cpu, 3)
        yield Step("ours, waits for the device", self._waits, 3)

    def recorded(self) -> Iterable[Step]:
        """The same recorded as CUDA graphs: nothing is compiled, and what is launched is launched at once."""
        yield Step("recorded, begin", partial(self._use, None), 1)
        yield from self._prepared(RECORDED, seconds=2)
        yield Step("recorded, end", self._forget, 1)

    def compiled(self) -> Iterable[Step]:
        """The same as ``Segmenter(compile=True)`` runs it, the most telling first: each step compiles its shapes."""
        yield Step("compiled, begin", partial(self._use, "eager" if self._context.quick else "inductor"), 10)
        yield from self._prepared(COMPILED, seconds=15)

    def larger(self) -> Iterable[Step]:
        """Batches that no goal asks for."""
        yield from self._images(OURS, (4, 16))

    def kernels(self) -> Step:
        """Which kernels run."""
        return Step("ours, kernels", self._kernels, 8)

    def _prepared(self, program: str, *, seconds: float) -> Iterable[Step]:
        """Each step begins with its preparation, whose time is a row of its own."""

        def step(what: str, prepare: Callable[[], object], *measures: Callable[[], None]) -> Step:
            def run() -> None:
                start = time.perf_counter()
                prepare()
                if self._context.device.type == "cuda":
                    torch.cuda.synchronize()
                taken = time.perf_counter() - start
                self._context.report.add("Seconds to prepare", program=program, what=what, seconds=taken)
                for one in measures:
                    one()

            return Step(f"{program}, {what}", run, seconds)

        yield step("1 image", partial(self._warm_image, 1), partial(self._encode, program, 1))
        yield step(
            "1 prompt",
            partial(self._warm_prompts, 1),
            partial(self._prompt_rows, program, 1),
            partial(self._end_to_end, program, 1),
        )
        yield step("8 images", partial(self._warm_image, 8), partial(self._encode, program, 8))
        yield step(
            "8 prompts",
            partial(self._warm_prompts, 8),
            partial(self._prompt_rows, program, 8),
            partial(self._end_to_end, program, 8),
        )

    def _load(self) -> None:
        start = time.perf_counter()
        device = self._context.device
        self.network = RandomNetwork(device=device, dtype=self._dtype, quick=self._context.quick)
        free(device)
        self._context.report.add(
            "Weights",
            program="s3seg",
            mb=parameters_mb(self.network.predictor.model),
            seconds_to_make=time.perf_counter() - start,
        )

    def _use(self, backend: str | None) -> None:
        predictor = self.network.predictor
        predictor._passes = CompiledPasses(predictor.model, predictor._passes.constants, backend=backend)

    def _forget(self) -> None:
        """Give back the memory of the graphs."""
        predictor = self.network.predictor
        self.network.predictor = type(predictor)(predictor.model, predictor.tokenizer)
        free(self._context.device)

    def _times(self, program: str) -> Times:
        return Times(self._context, self._rates, program)

    def _images(self, program: str, batches: Sequence[int]) -> Iterable[Step]:
        for batch in batches:
            yield Step(f"ours, {batch} images", partial(self._encode, program, batch), 1 + batch / 2)

    def _encode(self, program: str, batch: int) -> None:
        """From pixels on the device to features, as a service runs it, uint8 to begin with."""
        passes, side = self.network.predictor._passes, self.network.predictor.image_size
        pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=self._context.device)
        self._times(program).add(
            f"image, batch {batch}", lambda: passes.encode(pixels), tmac=batch * IMAGE_TMAC, each=batch
        )

    def _warm_image(self, batch: int) -> None:
        predictor = self.network.predictor
        side, device = predictor.image_size, self._context.device
        predictor._passes.encode(torch.zeros((batch, 3, side, side), dtype=torch.uint8, device=device))

    def _warm_prompts(self, prompts: int) -> None:
        """As `CompiledPasses.warm` does."""
        predictor = self.network.predictor
        passes, device = predictor._passes, self._context.device
        image = predictor.encode_resized([noise(predictor.image_size)])[0]
        text = torch.zeros(
            (prompts, TEXT_LENGTHS[0], predictor.model.config.channels), dtype=self._dtype, device=device
        )
        valid = torch.ones(text.shape[:2], dtype=torch.bool, device=device)
        passes.masks(image, passes.detect(image, text, valid, None), MASKS[0])

    def _predict(self, image: Any, queries: Sequence[Query], threshold: float = -1.0) -> None:
        for found in self.network.predictor.predict(image, queries, threshold=threshold, max_instances=INSTANCES):
            found.complete()

    def _image(self) -> Any:
        return self.network.predictor.encode_resized([noise(self.network.predictor.image_size)])[0]

    def _prompt_rows(self, program: str, prompts: int) -> None:
        image, queries = self._image(), [Query(prompt) for prompt in EIGHT[:prompts]]
        name = f"{prompts} prompt" if prompts == 1 else f"{prompts} prompts"
        self._times(program).add(name, lambda: self._predict(image, queries), tmac=prompts * PROMPT_TMAC, each=prompts)

    def _prompts(self) -> None:
        self._prompt_rows(OURS, 1)
        self._prompt_rows(OURS, 8)
        predictor, times, image = self.network.predictor, self._times(OURS), self._image()
        one, hundred = [Query(PROMPTS[0])], [Query(prompt) for prompt in (PROMPTS * 17)[:100]]
        ids = torch.tensor([predictor.tokenizer(PROMPTS[0])], device=self._context.device)
        times.add("1 prompt, absent", lambda: self._predict(image, one, threshold=1.0))
        times.add("1 prompt of a box", lambda: self._predict(image, [Query(PROMPTS[0], (BOX,))]))
        times.add("words of a new prompt", lambda: predictor.model.encode_text(ids))
        times.add("100 prompts", lambda: self._predict(image, hundred), tmac=100 * PROMPT_TMAC, each=100)

    def _segment(self, picture: ResizedImage, prompts: Sequence[str], size: tuple[int, int]) -> None:
        encoded = self.network.encode([picture])[0]
        for found in self.network.predict([(encoded, prompt) for prompt in prompts]):
            found.rles(size)

    def _end_to_end(self, program: str, prompts: int) -> None:
        network, times = self.network, self._times(program)
        jpeg = make_jpeg(quick=self._context.quick)
        pixels = images.load(jpeg).pixels
        size = pixels.shape[:2]
        tmac = IMAGE_TMAC + prompts * PROMPT_TMAC
        words = EIGHT[:prompts]
        name = "1 prompt" if prompts == 1 else f"{prompts} prompts"
        times.add(f"pixels to RLE, {name}", lambda: self._segment(network.resize(pixels, size), words, size), tmac=tmac)
        if prompts == 1:
            times.add(
                "JPEG to RLE, 1 prompt",
                lambda: self._segment(network.read(jpeg, name="jpeg"), words, size),
                tmac=tmac,
            )

    def _on_the_cpu(self) -> None:
        network, times = self.network, self._times(OURS)
        jpeg = make_jpeg(quick=self._context.quick)
        pixels = images.load(jpeg).pixels
        size = pixels.shape[:2]
        found = network.predict([(network.encode([network.resize(pixels, size)])[0], PROMPTS[0])])[0]
        times.add("CPU: decode and resize a JPEG", lambda: network.read(jpeg, name="jpeg"))
        times.add("CPU: resize pixels", lambda: network.resize(pixels, size))
        times.add("CPU: eight masks to RLE", lambda: found.rles(size))

    def _waits(self) -> None:
        report = self._context.report
        if self._context.device.type != "cuda":
            report.leave_out("waits for the device", "they can be counted on CUDA only")
            return
        predictor = self.network.predictor
        resized = noise(predictor.image_size)

        def request(queries: list[Query]) -> None:
            self._predict(predictor.encode_resized([resized])[0], queries)

        cases = {
            "1 prompt": [Query(EIGHT[0])],
            "8 prompts": [Query(prompt) for prompt in EIGHT],
            "8 prompts with a box": [Query(prompt, (BOX,)) for prompt in EIGHT],
        }
        for case, queries in cases.items():
            request(queries)
            waits = count_waits(partial(request, queries))
            report.add(WAITS, request=f"an image and {case}", line="all", waits=waits.total())
            for line, count in waits.most_common():
                report.add(WAITS, request=f"an image and {case}", line=line, waits=count)

    def _kernels(self) -> None:
        predictor, image = self.network.predictor, self._image()
        pixels = torch.zeros((1, 3, predictor.image_size, predictor.image_size), dtype=torch.uint8)
        pixels = pixels.to(self._context.device)

        def predict(prompts: int) -> None:
            self._predict(image, [Query(prompt) for prompt in EIGHT[:prompts]])

        cases = {"1 image": lambda: predictor._passes.encode(pixels), "1 prompt": lambda: predict(1)}
        for case, work in {**cases, "8 prompts": lambda: predict(8)}.items():
            work()
            found = kernels(work, self._context.device)
            total = sum(milliseconds for _, _, milliseconds in found)
            launches = sum(calls for _, calls, _ in found)
            self._context.report.add("Kernels", case=case, kernel="all", calls=launches, ms=total)
            attention = [one for one in found if _is_attention(one[0])]
            for name, calls, milliseconds in dict.fromkeys([*found[:14], *attention]):
                self._context.report.add(
                    "Kernels",
                    case=case,
                    kernel=name[:100],
                    calls=calls,
                    ms=milliseconds,
                    attention=_is_attention(name),
                )


def noise(side: int) -> Tensor:
    """A resized picture, uint8 (1, 3, side, side)."""
    return torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)


def _is_attention(kernel: str) -> bool:
    return any(word in kernel.lower() for word in ("flash", "fmha", "attention", "cudnn_generated", "softmax"))
