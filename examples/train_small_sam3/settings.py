"""What decides a run: written into its folder when it starts, read whenever it goes on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes, data and schedule of a run. Steps, not minutes, so that a run can be cut anywhere."""

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
    # data
    seed: int = 1
    batch: int = 16
    prompts: int = 4
    """Prompts an image, half of them answered by something."""
    extra_texts: int = 24
    """Texts a batch that only the dense losses see."""
    boxes: float = 0.25
    """Share of the answered prompts that are shown by boxes."""
    # schedule
    dense_steps: int = 0
    """Steps at the start in which patch tokens learn words, before there are queries."""
    steps: int = 16_000
    warmup: int = 200
    cooldown: float = 0.25
    """Share of the steps at the end in which the learning rate falls."""
    adam_rate: float = 1e-3
    muon_rate: float = 2e-3
    ema: float = 0.999

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch_size

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, as a share of the full one: warm-up, constant, cosine down to 2 %."""
        falling = (step - self.steps * (1 - self.cooldown)) / max(1, self.steps * self.cooldown)
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, falling))))
        return min(1.0, (step + 1) / max(1, self.warmup)) * fall

    def from_nothing(self, dense: float) -> Settings:
        """Return the same run for a network that has no parent: a share of the steps comes first, dense losses only."""
        return replace(self, dense_steps=round(dense * self.steps))

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
"""A run of about two minutes."""

SIZES = {"full": Settings(), "short": SHORT, "tiny": TINY}
