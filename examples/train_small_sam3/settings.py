"""What decides a run: written into its folder when it starts, read whenever it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .parents import Parent

FILE = "settings.json"
WARM_HEADS = 60
EVERYTHING, ALL_BUT_CLICKS, CLICKS_ONLY = "everything", "all_but_clicks", "clicks_only"
TRAINED_PARTS = (EVERYTHING, ALL_BUT_CLICKS, CLICKS_ONLY)
PRECISIONS = ("fp32", "bf16")
_BOOLEANS = {"true": True, "false": False}
NO_END = 1_000_000_000
"""Steps of a run, or of a part of it, that lasts until the clock says so."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes, data and schedule of a run. Steps, not minutes, so that a run can be interrupted anywhere."""

    # network
    image_size: int = 224
    patch_size: int = 16
    vit_width: int = 160
    vit_depth: int = 8
    channels: int = 64
    decoder_layers: int = 3
    queries: int = 36
    text_width: int = 128
    text_layers: int = 2
    clicks: bool = False
    """Whether the network has a click head, which learns from simulated clicks."""
    # data
    seed: int = 1
    batch: int = 32
    prompts: int = 8
    """Prompts per image, about half of them answered by something."""
    extra_texts: int = 24
    """Texts per batch that only the dense losses use."""
    dense_texts: int = 512
    """Texts per batch, at most, that the dense losses compare with every patch: some of all, in a large batch."""
    boxes: float = 0.25
    """Share of the answered prompts that are shown by boxes."""
    elsewhere: float = 0.3
    """Share of the images with a prompt whose example is shown on another image of the batch."""
    asked: float = 1.0
    """Share of the images of a batch that are asked something; the others have dense losses only, which are cheaper."""
    mask_share: float = 1.0
    """Share of the asked images whose masks are compared; the others are compared by scores and boxes only."""
    painted_scenes: float = 0.0
    """Share of the scenes that show only things of the kinds that can be painted, nearly all of them painted."""
    shape_scenes: float = 0.0
    """Share of the scenes that show mostly plain shapes."""
    clicked_things: int = 1
    """Things of each image that are clicked."""
    trained_part: str = EVERYTHING
    """One of `TRAINED_PARTS`: everything, all but the click head, or the click head alone with the rest frozen."""
    views: int = 1
    """Batches that are made of the same drawn scenes, each seen in another way and asked other things."""
    # schedule
    warm_heads: int = 0
    """Steps at the start in which only the auxiliary heads learn and the network is frozen, for a grown network."""
    dense_steps: int = 0
    """Steps at the start in which patch tokens learn words before the queries learn anything."""
    steps: int = 60_000
    warmup: int = 500
    cooldown: float = 0.4
    """Share of the steps, at the end, in which the learning rate falls to zero."""
    adam_rate: float = 1e-3
    muon_rate: float = 2e-3
    ema_images: int = 60_000
    """Images over which the weights are averaged."""
    precision: str = "fp32"
    """Of the forward pass: "fp32", or "bf16" where the processor has bf16 arithmetic (without it, bf16 is slow)."""

    def __post_init__(self) -> None:
        if self.trained_part not in TRAINED_PARTS:
            raise ValueError(f"trained_part must be one of {', '.join(TRAINED_PARTS)}, not {self.trained_part!r}")
        if self.trained_part == CLICKS_ONLY and not self.clicks:
            raise ValueError("a network without a click head cannot be trained on clicks only; set clicks=true")
        if self.trained_part == CLICKS_ONLY and self.warm_heads:
            raise ValueError("training on clicks only has no heads to warm up; set warm_heads=0")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.painted_scenes + self.shape_scenes > 1:
            raise ValueError("the shares painted_scenes and shape_scenes must not add up to more than 1")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    @property
    def loss_options(self) -> dict[str, Any]:
        """Return the options that `step.losses` takes from here."""
        return {"precision": self.precision, "trained_part": self.trained_part, "mask_share": self.mask_share}

    def asked_of(self, images: int) -> int:
        """Return how many of some images are asked: an even number that divides them, or all."""
        count = max(2, round(self.asked * images / 2) * 2)
        while count < images and images % count:
            count += 2
        return min(count, images)

    @property
    def ema(self) -> float:
        """Share of the averaged weights that stays in a step."""
        return math.exp(-self.batch / self.ema_images)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a share of the full one: warm-up, constant, linear down to zero."""
        if step < self.warm_heads:
            return 1.0
        rise = (step - self.warm_heads + 1) / max(1, self.warmup)
        fall = (self.steps - step) / max(1.0, self.steps * self.cooldown)
        return max(0.0, min(1.0, rise, fall))

    def with_overrides(self, given: Sequence[str]) -> Settings:
        """Return settings with some values changed, each given as "name=value".

        Raises:
            ValueError: There is no such setting, or the value is not of its type.
        """
        types, changed = {field.name: type(field.default) for field in fields(self)}, {}
        for text in given:
            name, _, value = text.partition("=")
            if name not in types:
                raise ValueError(f"there is no setting {name!r}; there are {', '.join(types)}")
            try:
                changed[name] = _BOOLEANS[value] if types[name] is bool else types[name](value)
            except (KeyError, ValueError):
                raise ValueError(f"{name} must be of type {types[name].__name__}, not {value!r}") from None
        return replace(self, **changed)

    def from_nothing(self, dense: float) -> Settings:
        """Return settings for a network without a parent: a share of the steps comes first, with dense losses only."""
        return replace(self, dense_steps=round(dense * self.steps))

    def grown(self, parent: Parent | None) -> Settings:
        """Return settings for a network that starts from a parent: new heads are warmed up before the network moves."""
        needs_warming = parent is not None and not parent.heads
        return replace(self, warm_heads=WARM_HEADS) if needs_warming else self

    def cool_down(self, step: int, steps: int, rate: float = 1.0) -> Settings:
        """Return settings whose learning rate falls from `rate` at `step` to zero, over that many further steps."""
        return replace(self, steps=step + steps, cooldown=steps / (step + steps) / rate)

    def save(self, folder: Path) -> None:
        """Write the settings into the run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Settings:
        """Read the settings of the run in a folder."""
        return cls(**json.loads((folder / FILE).read_text()))


TINY = Settings(
    image_size=64, vit_width=32, vit_depth=1, channels=32, decoder_layers=1, queries=4, text_width=32, text_layers=1,
    batch=2, prompts=2, extra_texts=2, steps=6, warmup=2,
)  # fmt: skip
"""A run of seconds, for tests: everything happens, nothing is learned."""

SHORT = replace(Settings(), vit_depth=4, batch=8, steps=120, warmup=20)
"""A run of a few minutes."""

GPU = replace(
    Settings(), batch=256, prompts=12, extra_texts=256, warmup=80, precision="bf16", ema_images=60_000,
    asked=0.25, views=4,
)  # fmt: skip
"""The full network in batches that fill a GPU."""

WIDE = replace(GPU, image_size=288, vit_width=192, channels=80, queries=64)
"""A larger network for a GPU, which cannot be grown from the full one."""

SIZES = {"full": Settings(), "short": SHORT, "tiny": TINY, "gpu": GPU, "wide": WIDE}
