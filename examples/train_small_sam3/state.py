"""Everything a run needs to go on exactly where it stopped, in one file of its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from s3seg.sam3.model import Sam3

from .batches import normalise
from .concepts import Vocabulary
from .dense_losses import AuxiliaryHeads
from .icons import IconAtlas
from .network import CONTEXT, grow_from, new_network, save_configuration, whiten_patches
from .optimisers import make_optimisers
from .scenes import Recipe, draw_scene
from .settings import Settings
from .tokenizer import save_tokenizer, train_tokenizer

FILE = "state.pt"


class TrainingState:
    """The network, its averaged weights, the optimisers, and how many steps they have made.

    There is no random state to keep: whatever is random in a step follows from the run's seed and the step.
    """

    def __init__(self, model: Sam3, heads: AuxiliaryHeads, settings: Settings) -> None:
        self.model, self.heads, self.step = model, heads, 0
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.optimisers = make_optimisers(model, heads, settings)

    def average_weights(self, decay: float) -> None:
        """Move the averaged weights towards the present ones; faster in the first steps."""
        decay = min(decay, (1 + self.step) / (20 + self.step))
        present = self.model.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [present[k] for k in self.average], 1 - decay)

    def save(self, folder: Path) -> None:
        """Write the state; an interrupted write leaves the last one."""
        content = {
            "step": self.step, "model": self.model.state_dict(), "heads": self.heads.state_dict(),
            "average": self.average, "optimisers": [o.state_dict() for o in self.optimisers],
        }  # fmt: skip
        torch.save(content, folder / f"{FILE}.part")
        (folder / f"{FILE}.part").replace(folder / FILE)

    def load(self, folder: Path) -> None:
        """Read the state of the run in a folder."""
        content = torch.load(folder / FILE, weights_only=True)
        self.step = content["step"]
        self.model.load_state_dict(content["model"])
        self.heads.load_state_dict(content["heads"])
        self.average = content["average"]
        for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)


def start(run: Path, settings: Settings, vocabulary: Vocabulary, atlas: IconAtlas, parent: Path | None) -> None:
    """Make the folder of a new run: settings, tokenizer, configuration, and the state before the first step."""
    settings.save(run)
    tokenizer = train_tokenizer(vocabulary)
    save_tokenizer(tokenizer, run, CONTEXT)
    save_configuration(settings, tokenizer.get_vocab_size(), run)
    model = new_network(settings, tokenizer.get_vocab_size())
    whiten_patches(model, _patches(settings, vocabulary, atlas))
    if parent is not None:
        grow_from(model, tokenizer, parent)
    TrainingState(model, AuxiliaryHeads(settings, len(vocabulary)), settings).save(run)


def resume(run: Path, vocabulary: Vocabulary) -> tuple[TrainingState, Settings, Tokenizer]:
    """Open a run where it stopped."""
    settings = Settings.load(run)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    model = new_network(settings, tokenizer.get_vocab_size())
    state = TrainingState(model, AuxiliaryHeads(settings, len(vocabulary)), settings)
    state.load(run)
    return state, settings, tokenizer


def _patches(settings: Settings, vocabulary: Vocabulary, atlas: IconAtlas, scenes: int = 300) -> Tensor:
    """Some patches of scenes, (N, 3, patch, patch), -1..1."""
    rng, size = np.random.default_rng(settings.seed), settings.patch_size
    found = []
    for i in range(scenes):
        image = draw_scene(i, Recipe(size=settings.image_size), vocabulary, atlas).image
        cells = torch.from_numpy(image).permute(2, 0, 1).unfold(1, size, size).unfold(2, size, size)
        cells = cells.permute(1, 2, 0, 3, 4).flatten(0, 1)
        found.append(cells[rng.permutation(len(cells))[:60]])
    return normalise(torch.cat(found))
