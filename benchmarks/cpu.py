"""Prompts of full SAM 3 on the CPU: together and one after the other, and each stage beside the machine's matmul rate.

Weights and encoded image are random: neither changes how long a prompt takes. Needs 4 GB of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import in_turns, show
from s3seg.sam3 import predictor as predictor_module
from s3seg.sam3.config import Sam3Config
from s3seg.sam3.load import empty_model
from s3seg.sam3.model import ImageFeatures, Sam3
from s3seg.sam3.predictor import Predictor, Query

FULL = {"model_type": "sam3_lite_text", "text_config": {"num_hidden_layers": 1, "max_position_embeddings": 16}}
"""Full size but for the text encoder, which is not measured."""

PROMPTS = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a prompt.

    Attributes:
        name: Which.
        gflop: Its floating-point operations, in 10^9; a multiply-add is two.
        seconds: The fastest of the runs.
    """

    name: str
    gflop: float
    seconds: float


def main() -> None:
    """Print both tables."""
    model = random_model(Sam3Config.from_dict(FULL))
    console = Console(width=120)
    rate = matmul_gflops(2048)
    table = Table(title=f"Stages of a prompt, fp32; matmul {rate:.0f} GFLOP/s", title_justify="left")
    for column in ("stage", "GFLOP", "ms", "GFLOP/s", "of the matmul rate"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in stages(model):
        reached = stage.gflop / stage.seconds
        row = (f"{stage.gflop:.1f}", f"{stage.seconds * 1000:.0f}", f"{reached:.0f}", f"{reached / rate:.0%}")
        table.add_row(stage.name, *row)
    console.print(table)
    show("Eight prompts on one encoded image, full size, fp32", {"8 prompts": in_turns(ways(model), rounds=3)})


def random_model(config: Sam3Config) -> Sam3:
    """Build a model with random weights that keep activations in range."""
    model = empty_model(config).to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.7 / max(1, parameter[0].numel()) ** 0.5, generator=generator)
    return model


def random_image(model: Sam3) -> ImageFeatures:
    """Return what the image encoder could have made of an image."""
    side = model.config.vision.image_size // model.config.vision.patch_size
    channels = model.config.channels
    finer = [torch.randn(1, channels, scale * side, scale * side) for scale in (4, 2)]
    return model.features((*finer, torch.randn(1, channels, side, side)))


@torch.inference_mode()
def stages(model: Sam3, *, runs: int = 3) -> list[Stage]:
    """Measure the stages of one prompt with ten instances, one after the other."""
    image = random_image(model)
    side = model.config.vision.image_size // model.config.vision.patch_size
    constants = model.constants((side, side))
    text = torch.randn(1, 4, model.config.channels)
    prompt = model.prompt(image, text, None, None)
    encoded = model.encode_prompted(image, prompt)
    found = model.detect(image, encoded, prompt, constants)
    work: dict[str, Callable[[], object]] = {
        "prompt": lambda: model.prompt(image, text, None, None),
        "encoder": lambda: model.encode_prompted(image, prompt),
        "decoder": lambda: model.detect(image, encoded, prompt, constants),
        "masks": lambda: model.masks(image, encoded, prompt, found.queries[:, :10], constants),
    }
    measured = []
    for name, run in work.items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it counts no fused attention
            run()
        measured.append(Stage(name, counter.get_total_flops() / 1e9, min(_seconds(run) for _ in range(runs))))
    return measured


def ways(model: Sam3) -> dict[str, Callable[[], object]]:
    """Return the ways to ask for eight prompts on one image: one call, eight calls, and all in one forward pass."""
    network = Predictor(model, lambda prompt: [0, *map(ord, prompt), 1])  # type: ignore[arg-type]
    with torch.inference_mode():
        image = random_image(model)
    queries = [Query(chr(ord("a") + number)) for number in range(PROMPTS)]

    def ask(some: list[Query]) -> None:
        network.predict(image, some, threshold=-1.0, max_instances=10)

    def in_one_pass() -> None:
        usual = predictor_module._TOKENS_AT_ONCE_CPU
        predictor_module._TOKENS_AT_ONCE_CPU = 1 << 30
        try:
            ask(queries)
        finally:
            predictor_module._TOKENS_AT_ONCE_CPU = usual

    return {
        "one call": lambda: ask(queries),
        "eight calls": lambda: [ask([query]) for query in queries],
        "one forward pass": in_one_pass,
    }


def matmul_gflops(side: int) -> float:
    """The rate of multiplying two square matrices, in GFLOP/s."""
    a, b = torch.randn(side, side), torch.randn(side, side)
    torch.mm(a, b)
    return 2 * side**3 / min(_seconds(lambda: torch.mm(a, b)) for _ in range(5)) / 1e9


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
