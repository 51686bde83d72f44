"""Everything a run needs to go on exactly where it stopped, in one file of its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from s3seg.sam3.model import Sam3

from .batch import normalise
from .concepts import Vocabulary
from .dense_losses import AuxiliaryHeads
from .icons import IconAtlas
from .network import CONTEXT, new_network, save_configuration, whiten_patches
from .optimisers import make_optimisers
from .parents import Parent, grow, grow_heads, open_parent
from .scenes import TRAINING, draw_scene
from .settings import ALL_BUT_CLICKS, CLICKS_ONLY, Settings
from .tokenizer import save_tokenizer, train_tokenizer

FILE = "state.pt"
CONCEPTS = "concepts.json"


class TrainingState:
    """The network, its averaged weights, the optimisers, and how many steps they have made.

    There is no random state to keep: whatever is random in a step follows from the run's seed and the step.
    """

    def __init__(self, model: Sam3, heads: AuxiliaryHeads, settings: Settings) -> None:
        self.model, self.heads, self.step = model, heads, 0
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.optimisers = make_optimisers(model, heads, settings)

    @property
    def learned(self) -> dict[str, Tensor]:
        """All weights that are learned, of the network and the heads, by name."""
        return dict(self.model.named_parameters()) | {f"heads.{n}": w for n, w in self.heads.named_parameters()}

    @property
    def momenta(self) -> dict[str, Tensor]:
        """What the optimisers remember of each weight, as `parents.Parent` names it."""
        names = {weight: name for name, weight in self.learned.items()}
        return {
            f"{names[weight]}/{key}": value
            for optimiser in self.optimisers for weight, kept in optimiser.state.items() for key, value in kept.items()
        }  # fmt: skip

    def take_momenta(self, momenta: dict[str, Tensor]) -> None:
        """Start the optimisers with what others remember of weights that have the same names and shapes."""
        weights = self.learned
        owner = {w: o for o in self.optimisers for group in o.param_groups for w in group["params"]}
        kept: dict[str, dict[str, Tensor]] = {}
        for key, value in momenta.items():
            name, _, part = key.rpartition("/")
            kept.setdefault(name, {})[part] = value
        for name, parts in kept.items():
            weight = weights.get(name)
            if weight is not None and all(v.shape in (weight.shape, ()) for v in parts.values()):
                owner[weight].state[weight] = {part: value.clone() for part, value in parts.items()}

    def set_trainable(self, part: str, *, network: bool) -> None:
        """Freeze all weights but those of a part.

        Args:
            part: One of `settings.TRAINED_PARTS`.
            network: Whether the network is trained, or the auxiliary heads only.
        """
        self.model.requires_grad_(network and part != CLICKS_ONLY)
        self.heads.requires_grad_(part != CLICKS_ONLY)
        if self.model.clicks is not None:
            self.model.clicks.requires_grad_(network and part != ALL_BUT_CLICKS)

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
        content = torch.load(folder / FILE, weights_only=True, map_location="cpu")
        self.step = content["step"]
        self.model.load_state_dict(content["model"])
        self.heads.load_state_dict(content["heads"])
        for name, kept in self.average.items():
            kept.copy_(content["average"][name])
        for optimiser, state in zip(self.optimisers, content["optimisers"], strict=True):
            optimiser.load_state_dict(state)


def start(run: Path, settings: Settings, vocabulary: Vocabulary, atlas: IconAtlas, parent: Parent | None) -> None:
    """Make the folder of a new run: settings, tokenizer, configuration, and the state before the first step."""
    settings.save(run)
    tokenizer = train_tokenizer(vocabulary) if parent is None else parent.tokenizer
    save_tokenizer(tokenizer, run, CONTEXT)
    save_configuration(settings, tokenizer.get_vocab_size(), run)
    (run / CONCEPTS).write_text(json.dumps(vocabulary.names) + "\n")
    model = new_network(settings, tokenizer.get_vocab_size())
    whiten_patches(model, _patches(settings, vocabulary, atlas))
    heads = AuxiliaryHeads(settings, len(vocabulary))
    if parent is not None:
        grow(model.state_dict(), parent)
        grow_heads(heads.state_dict(), parent, vocabulary.names)
    state = TrainingState(model, heads, settings)
    if parent is not None:
        state.take_momenta(parent.momenta)
    state.save(run)


def resume(
    run: Path, vocabulary: Vocabulary, device: torch.device | str = "cpu"
) -> tuple[TrainingState, Settings, Tokenizer]:  # fmt: skip
    """Open a run where it stopped, on a device.

    Raises:
        ValueError: The table of concepts has changed since the run was started.
    """
    if _concepts(run) != vocabulary.names:
        raise ValueError(
            f"the table of concepts is not the one that {run} was started with; start a new run with --grow-from {run}"
        )
    return _open(run, device)


def open_any(folder: Path, extras: Path | None = None) -> Parent:
    """Read a checkpoint, or a run, as the parent of a new run, whose network or vocabulary may be larger."""
    if not (folder / FILE).exists():
        return open_parent(folder, extras)
    state, _, tokenizer = _open(folder)
    return Parent(
        weights=state.model.state_dict(), tokenizer=tokenizer, boxes=True, heads=state.heads.state_dict(),
        momenta=state.momenta, concepts=_concepts(folder),
    )  # fmt: skip


def _open(run: Path, device: torch.device | str = "cpu") -> tuple[TrainingState, Settings, Tokenizer]:
    settings = Settings.load(run)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    model = new_network(settings, tokenizer.get_vocab_size())
    heads = AuxiliaryHeads(settings, len(_concepts(run)))
    state = TrainingState(model.to(device), heads.to(device), settings)
    state.load(run)
    return state, settings, tokenizer


def _concepts(run: Path) -> tuple[str, ...]:
    return tuple(json.loads((run / CONCEPTS).read_text()))


def _patches(settings: Settings, vocabulary: Vocabulary, atlas: IconAtlas, scenes: int = 100) -> Tensor:
    """Some patches of scenes, (N, 3, patch, patch), -1..1."""
    recipe = replace(TRAINING, size=settings.image_size)
    rng, size = np.random.default_rng(settings.seed), settings.patch_size
    found = []
    for i in range(scenes):
        image = draw_scene(i, recipe, vocabulary, atlas).image
        cells = torch.from_numpy(image).permute(2, 0, 1).unfold(1, size, size).unfold(2, size, size)
        cells = cells.permute(1, 2, 0, 3, 4).flatten(0, 1)
        found.append(cells[rng.permutation(len(cells))[:180]])
    return normalise(torch.cat(found))
