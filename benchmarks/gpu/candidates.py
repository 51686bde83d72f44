"""Single operations of the network at full size, each in the forms among which it is not yet known which is fastest.

All forms of an operation compute the same; the first is the one that the network has. One that is faster here is worth
trying in the network, and no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.context import Context
from benchmarks.gpu.report import Step
from benchmarks.gpu.timing import measure
from s3seg.sam3.heads import doubling_kernel
from s3seg.sam3.positions import rotary_table, rotate

FORMS = "Operations in several forms"
ATTENTION = "Attention, milliseconds by kernel (none: it does not take the shape or the mask)"
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
_HALF_A_SECOND = 0.5
Form = Callable[[], Tensor]


def steps(context: Context, dtype: torch.dtype) -> Iterable[Step]:
    """Each group of operations."""
    yield from _attention_steps(context, dtype)
    groups = {
        "mask head: doubling a map": _doubling,
        "mask head: normalizing": _normalizing,
        "neck": _neck,
        "linear layer and ReLU": _relu,
        "rotating queries and keys": _rotating,
    }
    for name, group in groups.items():
        yield Step(name, partial(_measure_group, context, name, group(context, dtype)), 6)


def _measure_group(context: Context, name: str, cases: Iterable[tuple[str, Mapping[str, Form]]]) -> None:
    """Time all forms of an operation, and say how far each is from the first."""
    for case, forms in cases:
        first: Tensor | None = None
        first_ms = 0.0
        for form, compute in forms.items():
            result = compute().float()
            first = result if first is None else first
            error = ((result - first).norm() / first.norm()).item()
            del result
            runs, warmup = (1, 0) if context.quick else (20, 3)
            took = measure(compute, context.device, runs=runs, warmup=warmup, seconds=_HALF_A_SECOND).milliseconds
            first_ms = first_ms or took
            context.report.add(
                FORMS, operation=name, case=case, form=form, ms=took, of_the_first=took / first_ms, relative_error=error
            )


def _doubling(context: Context, dtype: torch.dtype) -> Iterable[tuple[str, dict[str, Form]]]:
    """Nearest-neighbor upsampling by 2 and a 3 x 3 convolution, for the second stage and 1 or 8 prompts."""
    channels, side = (32, 8) if context.quick else (256, 144)
    weight = _random(context, dtype, channels, channels, 3, 3) / (9 * channels) ** 0.5
    kernel = doubling_kernel(weight)
    weight_last = weight.contiguous(memory_format=torch.channels_last)
    for prompts in (1, 8):
        x = _random(context, dtype, prompts, channels, side, side)
        last = x.contiguous(memory_format=torch.channels_last)

        def four(x: Tensor = last) -> Tensor:
            padded = F.pad(x, (1, 1, 1, 1))
            n, c, h, w = x.shape
            out = torch.empty(n, c, 2 * h, 2 * w, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            for i in range(2):
                for j in range(2):
                    part = kernel[:, :, 1 - i :: 2, 1 - j :: 2].flip(2, 3).transpose(0, 1)
                    out[:, :, i::2, j::2] = F.conv2d(padded[:, :, i : i + h + 1, j : j + w + 1], part)
            return out

        def upsampled(x: Tensor, weight: Tensor) -> Tensor:
            return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)

        yield (
            f"{prompts} prompts",
            {
                "transposed, channels last": partial(F.conv_transpose2d, last, kernel, stride=2, padding=1),
                "transposed, cudnn.benchmark": _tuned(partial(F.conv_transpose2d, last, kernel, stride=2, padding=1)),
                "transposed, contiguous": partial(
                    F.conv_transpose2d, x, kernel.contiguous(), stride=2, padding=1
                ),
                "four 2 x 2 convolutions": four,
                "upsampled, weights channels last": partial(upsampled, last, weight_last),
                "upsampled, weights contiguous": partial(upsampled, last, weight),
            },
        )  # fmt: skip


def _normalizing(context: Context, dtype: torch.dtype) -> Iterable[tuple[str, dict[str, Form]]]:
    """GroupNorm and ReLU at the finest resolution."""
    channels, side = (32, 16) if context.quick else (256, 288)
    weight, bias = _random(context, dtype, channels), _random(context, dtype, channels)
    for prompts in (1, 8):
        x = _random(context, dtype, prompts, channels, side, side)
        last = x.contiguous(memory_format=torch.channels_last)

        def norm(x: Tensor) -> Tensor:
            return F.relu(F.group_norm(x, 8, weight, bias), inplace=True)

        def by_hand(x: Tensor = last) -> Tensor:
            """Two passes that keep the layout: sums by channel, then one multiplication and one addition."""
            n, c, h, w = x.shape
            rows = x.permute(0, 2, 3, 1).reshape(n, h * w, 8, c // 8)
            variance, mean = torch.var_mean(rows.float(), dim=(1, 3), correction=0, keepdim=True)
            scale = weight.float().view(8, -1) * torch.rsqrt(variance + 1e-5)
            shift = bias.float().view(8, -1) - mean * scale
            scaled = torch.addcmul(shift.to(x.dtype), rows, scale.to(x.dtype))
            return F.relu(scaled, inplace=True).view(n, h, w, c).permute(0, 3, 1, 2)

        yield (
            f"{prompts} prompts",
            {
                "group_norm, channels last": partial(norm, last),
                "group_norm, contiguous": partial(norm, x),
                "by hand, channels last": by_hand,
            },
        )


def _neck(context: Context, dtype: torch.dtype) -> Iterable[tuple[str, dict[str, Form]]]:
    """The 3 x 3 convolution at the finest resolution, whose input is channels last."""
    channels, side = (32, 16) if context.quick else (256, 288)
    weight, bias = _random(context, dtype, channels, channels, 3, 3), _random(context, dtype, channels)
    weight_last = weight.contiguous(memory_format=torch.channels_last)
    for images in (1, 8):
        last = _random(context, dtype, images, channels, side, side).contiguous(memory_format=torch.channels_last)
        given = {"contiguous": weight, "channels last": weight_last}
        forms: dict[str, Form] = {
            f"weights {name}": partial(F.conv2d, last, one, bias, padding=1) for name, one in given.items()
        }
        tuned = {f"{name}, cudnn.benchmark": _tuned(form) for name, form in forms.items()}
        yield f"{images} images, 3 x 3 convolution", {**forms, **tuned}


def _relu(context: Context, dtype: torch.dtype) -> Iterable[tuple[str, dict[str, Form]]]:
    """The first layer of the encoder's MLP."""
    channels, width, tokens = (32, 64, 64) if context.quick else (256, 2048, 5184)
    weight, bias = _random(context, dtype, width, channels), _random(context, dtype, width)
    for prompts in (1, 8):
        x = _random(context, dtype, prompts * tokens, channels)
        yield (
            f"{prompts} prompts",
            {
                "linear, relu in place": lambda x=x: F.relu(F.linear(x, weight, bias), inplace=True),
                "_addmm_activation": lambda x=x: torch.ops.aten._addmm_activation(bias, x, weight.t()),
                "linear alone": lambda x=x: F.linear(x, weight, bias),
            },
        )


def _rotating(context: Context, dtype: torch.dtype) -> Iterable[tuple[str, dict[str, Form]]]:
    """RoPE of a global layer. It comes last: its compiled form is the first that is compiled, which takes seconds."""
    heads, side = (4, 8) if context.quick else (16, 72)
    table = rotary_table(side, side, 64, 24 / side, 10_000.0, torch.zeros(0, device=context.device).device)

    def real(x: Tensor) -> Tensor:
        (a, b), (cos, sin) = x.float().unflatten(-1, (-1, 2)).unbind(-1), table.unbind(-1)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).to(x.dtype)

    compiled = torch.compile(real, backend="eager" if context.quick else "inductor", dynamic=False)
    for images in (1, 8):
        qkv = _random(context, dtype, images, side * side, 3, heads, 64)
        x = qkv.permute(2, 0, 3, 1, 4)[:2]
        yield (
            f"{images} images",
            {
                "complex": partial(rotate, x, table),
                "real": partial(real, x),
                "real, compiled": partial(compiled, x),
            },
        )


def _tuned(form: Form) -> Form:
    """With cuDNN measuring which of its algorithms is fastest, at the first call of a shape."""

    def run() -> Tensor:
        torch.backends.cudnn.benchmark = True
        try:
            return form()
        finally:
            torch.backends.cudnn.benchmark = False

    return run


def _random(context: Context, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, device=context.device, dtype=dtype)


def _attention_steps(context: Context, dtype: torch.dtype) -> Iterable[Step]:
    """Each attention of the network by itself, with every kernel that PyTorch has for it."""
    side = 8 if context.quick else 72
    image, window = side * side, 4 if context.quick else 24
    for batch in (1,) if context.quick else (1, 8):
        shapes = {
            "image, windows (x28)": ((9 * batch, 16, window * window, 64), window * window, None),
            "image, global (x4)": ((batch, 16, image, 64), image, None),
            "encoder, to itself (x6)": ((batch, 8, image, 32), image, None),
            "encoder, to the prompt (x6), 5 tokens": ((batch, 8, image, 32), 5, None),
            "encoder, to the prompt (x6), 8 tokens, mask": ((batch, 8, image, 32), 8, "valid"),
            "decoder, to itself (x6)": ((batch, 8, 201, 32), 201, None),
            "decoder, to the image (x6), bias": ((batch, 8, 201, 32), image, "bias"),
        }
        for name, (shape, keys, mask) in shapes.items():
            work = partial(_attention, context, dtype, name, shape, keys, mask)
            yield Step(f"attention, batch {batch}: {name}", work, 3)


def _attention(
    context: Context, dtype: torch.dtype, name: str, shape: tuple[int, ...], keys: int, mask: str | None
) -> None:
    batch, heads, queries, width = shape
    device = context.device
    # as the network lays them out: the heads of a token side by side
    q, k, v = (
        torch.randn(batch, count, heads, width, device=device, dtype=dtype).transpose(1, 2)
        for count in (queries, keys, keys)
    )
    bias: Tensor | None = None
    if mask == "valid":
        bias = torch.ones(batch, 1, 1, keys, dtype=torch.bool, device=device)
        bias[..., -1] = False
    elif mask:
        bias = torch.randn(batch, heads, queries, keys, device=device, dtype=dtype)

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    flops = 4 * batch * heads * queries * keys * width
    torch.backends.cuda.enable_cudnn_sdp(False)  # as our network sets it
    runs, warmup = (1, 0) if context.quick else (20, 3)
    ours = measure(attend, device, runs=runs, warmup=warmup, seconds=_HALF_A_SECOND).milliseconds
    row: dict[str, Any] = {"attention": name, "batch": batch, "as_the_network_ms": ours, "tflops": flops / ours / 1e9}
    for backend, chosen in BACKENDS.items():
        if backend == "math" and not context.quick and queries * keys * heads * batch > 2**31:
            continue  # its scores take 8 GB and more
        try:
            with sdpa_kernel(chosen):
                row[f"{backend}_ms"] = measure(
                    attend, device, runs=runs, warmup=warmup, seconds=_HALF_A_SECOND
                ).milliseconds
        except RuntimeError:  # this kernel does not take such a shape or mask
            row[f"{backend}_ms"] = None
    context.report.add(ATTENTION, **row)
