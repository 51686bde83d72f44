"""Part ``alone``: how long the network takes without a service around it, beside transformers and beside the floor.

The floor of a figure is the multiplications of the network as published, over the card's measured rate in the same
precision. Ours does fewer of them for a prompt (``docs/explanation/network.md``, "Computing the same for less").
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.context import Context
from benchmarks.gpu.machine import copy_gb_per_s, matmul_tflops
from benchmarks.gpu.models import in_precision, parameters_mb, peer_config, random_peer
from benchmarks.gpu.network import INSTANCES, RandomNetwork
from benchmarks.gpu.pictures import PROMPTS, make_jpeg
from benchmarks.gpu.report import Step
from benchmarks.gpu.timing import count_waits, kernels, measure
from s3seg import images
from s3seg.inference.stages import EncodedImage, ResizedImage
from s3seg.sam3.predictor import Query, normalise

IMAGE_TMAC, PROMPT_TMAC = 2.80, 0.208  # of full SAM 3, counted from its layers
TIMES = "Milliseconds"
BATCHES = (1, 4, 8, 16)
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def run(context: Context) -> None:
    """Measure ours, then transformers; never both in the device's memory at once."""
    dtype = torch.float32 if context.quick else torch.bfloat16
    report = context.report
    with torch.inference_mode():
        rates = _Rates(context, dtype)
        report.run([Step("rates of the card", rates.measure, 5)], context.deadline)
        ours = _Ours(context, dtype, rates)
        report.run(ours.steps(), context.deadline)
        ours.network = None
        _free(context.device)
        peer = _Transformers(context, dtype, rates)
        report.run(peer.steps(), context.deadline)
        peer.model = None
        _free(context.device)
        report.run(_attention_steps(context, dtype), context.deadline)
        compiling = partial(_compiled, context, dtype, rates)
        report.run([Step("ours, image encoder compiled", compiling, 45)], context.deadline)
    bars = {f"{row['program']}: {row['what']}": row["ms"] for row in report.tables.get(TIMES, [])}
    card = "the CPU, tiny networks" if context.quick else torch.cuda.get_device_name()
    report.plot(f"Full SAM 3, random weights, {str(dtype).removeprefix('torch.')}, {card}", bars, unit="ms")


class _Rates:
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


def _time(
    context: Context, rates: _Rates, program: str, what: str, run: Callable[[], object], *, tmac: float, each: int = 1
) -> None:
    """Add a row: medians of up to 30 runs, divided by how many pictures or prompts a run does."""
    runs, warmup = (1, 0) if context.quick else (30, 3)
    measured = measure(run, context.device, runs=runs, warmup=warmup, deadline=context.deadline)
    floor = rates.floor_ms(tmac)
    context.report.add(
        TIMES,
        program=program,
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


class _Ours:
    """Measurements of our network."""

    def __init__(self, context: Context, dtype: torch.dtype, rates: _Rates) -> None:
        self._context, self._dtype, self._rates = context, dtype, rates
        self.network: Any = None

    def steps(self) -> Iterable[Step]:
        """All of them; the first makes the network that the others use."""
        yield Step("ours, weights", self._load, 10)
        for batch in BATCHES:
            yield Step(f"ours, {batch} images", partial(self._encode, batch), 8)
        yield Step("ours, prompts", self._prompts, 12)
        yield Step("ours, end to end", self._end_to_end, 12)
        yield Step("ours, waits for the device", self._waits, 3)
        yield Step("ours, kernels", self._kernels, 8)

    def _load(self) -> None:
        start = time.perf_counter()
        device = self._context.device
        self.network = RandomNetwork(device=device, dtype=self._dtype, quick=self._context.quick)
        _free(device)
        self._context.report.add(
            "Weights",
            program="s3seg",
            mb=parameters_mb(self.network.predictor.model),
            seconds_to_make=time.perf_counter() - start,
        )

    def _time(self, what: str, run: Callable[[], object], *, tmac: float, each: int = 1) -> None:
        _time(self._context, self._rates, "s3seg", what, run, tmac=tmac, each=each)

    def _encode(self, batch: int) -> None:
        predictor = self.network.predictor
        pixels = _pixels(batch, predictor.image_size, self._context.device, self._dtype)
        self._time(
            f"image, batch {batch}", lambda: predictor.model.encode_image(pixels), tmac=batch * IMAGE_TMAC, each=batch
        )

    def _prompts(self) -> None:
        predictor = self.network.predictor
        image = predictor.encode_resized([_noise(predictor.image_size)])[0]

        def predict(queries: Sequence[Query], threshold: float = -1.0) -> None:
            predictor.predict(image, queries, threshold=threshold, max_instances=INSTANCES)

        some = [Query(prompt) for prompt in (PROMPTS * 17)[:100]]
        ids = torch.tensor([predictor.tokenizer(PROMPTS[0])], device=self._context.device)
        self._time("words of a new prompt", lambda: predictor.model.encode_text(ids), tmac=0)
        self._time("1 prompt", lambda: predict(some[:1]), tmac=PROMPT_TMAC)
        self._time("1 prompt, absent", lambda: predict(some[:1], threshold=1.0), tmac=0)
        self._time("8 prompts", lambda: predict(some[:8]), tmac=8 * PROMPT_TMAC, each=8)
        self._time("100 prompts", lambda: predict(some), tmac=100 * PROMPT_TMAC, each=100)

    def _end_to_end(self) -> None:
        jpeg = make_jpeg(quick=self._context.quick)
        pixels = images.load(jpeg).pixels
        network = self.network
        size = pixels.shape[:2]
        both = IMAGE_TMAC + PROMPT_TMAC

        def segment(picture: ResizedImage, prompts: Sequence[str] = PROMPTS[:1]) -> None:
            encoded = network.encode([picture])[0]
            for found in network.predict([(encoded, prompt) for prompt in prompts]):
                found.rles(size)

        self._time("JPEG to RLE, 1 prompt", lambda: segment(network.read(jpeg, name="jpeg")), tmac=both)
        self._time("pixels to RLE, 1 prompt", lambda: segment(network.resize(pixels, size)), tmac=both)
        resized = network.resize(pixels, size)
        self._time("resized to RLE, 1 prompt", lambda: segment(resized), tmac=both)
        eight = (PROMPTS * 2)[:8]
        self._time("resized to RLE, 8 prompts", lambda: segment(resized, eight), tmac=IMAGE_TMAC + 8 * PROMPT_TMAC)
        self._time("of it: decode and resize a JPEG (CPU)", lambda: network.read(jpeg, name="jpeg"), tmac=0)
        self._time("of it: resize pixels (CPU)", lambda: network.resize(pixels, size), tmac=0)
        found = network.predict([(network.encode([resized])[0], PROMPTS[0])])[0]
        self._time("of it: eight masks to RLE (CPU)", lambda: found.rles(size), tmac=0)

    def _waits(self) -> None:
        if self._context.device.type != "cuda":
            self._context.report.leave_out("waits for the device", "they can be counted on CUDA only")
            return
        network = self.network
        resized = ResizedImage(_noise(network.predictor.image_size), (1000, 1000))

        def request(prompts: int) -> list[EncodedImage]:
            encoded = network.encode([resized])
            network.predict([(encoded[0], prompt) for prompt in (PROMPTS * 2)[:prompts]])
            return encoded

        for prompts in (1, 8):
            request(prompts)
            waits = count_waits(partial(request, prompts))
            case = f"an image and {prompts} prompts"
            self._context.report.add("Waits for the device", request=case, line="all", waits=waits.total())
            for line, count in waits.most_common():
                self._context.report.add("Waits for the device", request=case, line=line, waits=count)

    def _kernels(self) -> None:
        predictor = self.network.predictor
        pixels = _pixels(1, predictor.image_size, self._context.device, self._dtype)
        image = predictor.encode_resized([_noise(predictor.image_size)])[0]

        def predict(prompts: int) -> None:
            queries = [Query(prompt) for prompt in (PROMPTS * 2)[:prompts]]
            predictor.predict(image, queries, threshold=-1.0, max_instances=INSTANCES)

        cases = {"1 image": lambda: predictor.model.encode_image(pixels), "1 prompt": lambda: predict(1)}
        for case, work in {**cases, "8 prompts": lambda: predict(8)}.items():
            found = kernels(work, self._context.device)
            total = sum(milliseconds for _, _, milliseconds in found)
            launches = sum(calls for _, calls, _ in found)
            self._context.report.add("Kernels", case=case, kernel="all", calls=launches, ms=total)
            attention = [one for one in found if _is_attention(one[0])]
            for name, calls, milliseconds in dict.fromkeys([*found[:10], *attention]):
                self._context.report.add(
                    "Kernels",
                    case=case,
                    kernel=name[:100],
                    calls=calls,
                    ms=milliseconds,
                    attention=_is_attention(name),
                )


class _Transformers:
    """The same of transformers, eager, in the same precision."""

    def __init__(self, context: Context, dtype: torch.dtype, rates: _Rates) -> None:
        self._context, self._dtype, self._rates = context, dtype, rates
        self.model: Any = None

    def steps(self) -> Iterable[Step]:
        """All of them; the first makes the network that the others use."""
        yield Step("transformers, weights", self._load, 10)
        yield Step("transformers, one image and one prompt", self._whole, 12)
        for batch in BATCHES:
            yield Step(f"transformers, {batch} images", partial(self._encode, batch), 8)
        yield Step("transformers, prompts", self._prompts, 8)

    def _load(self) -> None:
        device, quick = self._context.device, self._context.quick
        exact = random_peer(peer_config("sam3", quick=quick, vocab_size=4000), device)
        self.model = in_precision(exact, self._dtype)
        del exact
        _free(device)
        self._context.report.add("Weights", program="transformers", mb=parameters_mb(self.model))

    @property
    def _side(self) -> int:
        return self.model.config.vision_config.backbone_config.image_size

    def _time(self, what: str, run: Callable[[], object], *, tmac: float, each: int = 1) -> None:
        _time(self._context, self._rates, "transformers", what, run, tmac=tmac, each=each)

    def _encode(self, batch: int) -> None:
        pixels = _pixels(batch, self._side, self._context.device, self._dtype)
        self._time(
            f"image, batch {batch}",
            lambda: self.model.get_vision_features(pixel_values=pixels),
            tmac=batch * IMAGE_TMAC,
            each=batch,
        )

    def _prompts(self) -> None:
        ids = _ids(self._context.device)
        vision = self.model.get_vision_features(pixel_values=_pixels(1, self._side, self._context.device, self._dtype))
        self._time(
            "1 prompt",
            lambda: self.model(vision_embeds=vision, input_ids=ids, attention_mask=torch.ones_like(ids)),
            tmac=PROMPT_TMAC,
        )

    def _whole(self) -> None:
        device = self._context.device
        ids, resized = _ids(device), _noise(self._side)
        size = (126, 163) if self._context.quick else (1306, 1632)

        def segment(prompts: int) -> None:
            for _ in range(prompts):  # each prompt with the whole network, as its documentation shows
                pixels = normalise(resized.to(device)).to(self._dtype)
                said = self.model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
                scores = said.pred_logits.sigmoid() * said.presence_logits.sigmoid()
                best = scores[0].topk(min(INSTANCES, scores.shape[1])).indices
                chosen = said.pred_masks[:, best].float()
                F.interpolate(chosen, size=size, mode="bilinear").gt(0).cpu()

        # it ends with boolean masks, where ours goes on to RLE: the difference is in its favour
        self._time("resized to masks, 1 prompt", lambda: segment(1), tmac=IMAGE_TMAC + PROMPT_TMAC)
        self._time("resized to masks, 8 prompts", lambda: segment(8), tmac=8 * (IMAGE_TMAC + PROMPT_TMAC))


def _attention_steps(context: Context, dtype: torch.dtype) -> Iterable[Step]:
    """Each attention of the network by itself, with every kernel that PyTorch has for it."""
    side = 8 if context.quick else 72
    image, window = side * side, 4 if context.quick else 24
    shapes = {
        "image, windows (x28)": ((9, 16, window * window, 64), window * window, None),
        "image, global (x4)": ((1, 16, image, 64), image, None),
        "encoder, to itself (x6)": ((1, 8, image, 32), image, None),
        "encoder, to the prompt (x6)": ((1, 8, image, 32), 5, "valid"),
        "decoder, to itself (x6)": ((1, 8, 201, 32), 201, None),
        "decoder, to the image (x6), bias as it is": ((1, 8, 201, 32), image, "bias, heads last"),
        "decoder, to the image (x6), bias contiguous": ((1, 8, 201, 32), image, "bias"),
    }
    for name, (shape, keys, mask) in shapes.items():
        yield Step(f"attention: {name}", partial(_attention, context, dtype, name, shape, keys, mask), 3)


def _attention(
    context: Context, dtype: torch.dtype, name: str, shape: tuple[int, ...], keys: int, mask: str | None
) -> None:
    batch, heads, queries, width = shape
    device = context.device
    q = torch.randn(shape, device=device, dtype=dtype)
    k, v = (torch.randn(batch, heads, keys, width, device=device, dtype=dtype) for _ in range(2))
    bias: Tensor | None = None
    if mask == "valid":
        bias = torch.ones(batch, 1, 1, keys, dtype=torch.bool, device=device)
    elif mask == "bias":
        bias = torch.randn(batch, heads, queries, keys, device=device, dtype=dtype)
    elif mask:
        bias = torch.randn(batch, queries, keys, heads, device=device, dtype=dtype).permute(0, 3, 1, 2)

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    row: dict[str, Any] = {"attention": name}
    row["default_ms"] = measure(attend, device, runs=20, seconds=0.5).milliseconds
    found = kernels(attend, device)
    row["default_kernel"] = found[0][0][:60] if found else None
    for backend, chosen in BACKENDS.items():
        try:
            with sdpa_kernel(chosen):
                row[f"{backend}_ms"] = measure(attend, device, runs=20, seconds=0.5).milliseconds
        except RuntimeError:  # this kernel does not take such a shape or mask
            row[f"{backend}_ms"] = None
    context.report.add("Attention, milliseconds by kernel (none: it does not take the shape or the mask)", **row)


def _compiled(context: Context, dtype: torch.dtype, rates: _Rates) -> None:
    """Compile the image encoder. It is the last measurement: if it takes too long, only it is lost."""
    network = RandomNetwork(device=context.device, dtype=dtype, quick=context.quick)
    model = network.predictor.model
    # a quick run traces as a full one does, and leaves out the compiler behind it
    compiled = torch.compile(model.vision, backend="eager" if context.quick else "inductor", dynamic=False)
    for batch in (1,) if context.quick else (8, 1):
        pixels = _pixels(batch, network.predictor.image_size, context.device, dtype)
        start = time.perf_counter()
        compiled(pixels)
        context.report.add("Compiling the image encoder", batch=batch, seconds=time.perf_counter() - start)
        _time(
            context,
            rates,
            "s3seg compiled",
            f"image, batch {batch}",
            lambda pixels=pixels: model.features(compiled(pixels)),
            tmac=batch * IMAGE_TMAC,
            each=batch,
        )


def _is_attention(kernel: str) -> bool:
    return any(word in kernel.lower() for word in ("flash", "fmha", "attention", "cudnn_generated", "softmax"))


def _pixels(batch: int, side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.rand(batch, 3, side, side, device=device).mul(2).sub(1).to(dtype)


def _noise(side: int) -> Tensor:
    """A resized picture, uint8 (1, 3, side, side)."""
    return torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)


def _ids(device: torch.device) -> Tensor:
    return torch.tensor([[3998, 7, 3999]], device=device)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
