"""Checkpoint layouts: where each tensor of our model is found in a published checkpoint.

Each layout is a table from our tensor name to a `TensorSource`. In a table:

- ``*`` stands for a layer number, which is the same on both sides.
- A key that names a module covers both its weight and its bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from s3seg.sam3.sources import TensorSource, complete


@dataclass(frozen=True, slots=True)
class Layout:
    """A published naming scheme for the tensors of SAM 3."""

    name: str
    prefix: str
    """Prefix of the detector's tensors in files that also hold a tracker."""
    ignored_prefixes: tuple[str, ...]
    """Prefixes of tensors that belong to the tracker, not to the detector; written without `prefix`."""
    click_prefixes: tuple[str, ...]
    """Prefixes of those that make up the click head, which are read all the same if the file has `click_marker`."""
    click_marker: str
    """A tensor that every checkpoint with a click head has."""
    marker: str
    """A tensor that every checkpoint in this layout has, and none in a layout after it in `s3seg.sam3.load.LAYOUTS`."""
    table: Mapping[str, TensorSource]
    """Where each of our tensors is found, by our name."""
    unused: tuple[str, ...]
    """Regular expressions for tensors that inference on images never uses; written without `prefix`."""
    infers_config: bool = False
    """Whether the configuration follows from the tensors, so that a file needs no ``config.json``."""

    def source(self, ours: str) -> TensorSource:
        """Return where one of our tensors is found. Names in the result are without `prefix`.

        Raises:
            KeyError: The table has no entry for this name.
        """
        number = re.search(r"\.(\d+)\.", ours)
        general = re.sub(r"\.\d+\.", ".*.", ours, count=1)
        for key, suffix in ((general, ""), general.rsplit(".", 1), (ours, ""), ours.rsplit(".", 1)):
            if found := self.table.get(key):
                return complete(found, number[1] if number else "", suffix)
        raise KeyError(ours)

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """Select the tensors of the detector and the click head: map each name without `prefix` to its name there."""
        by_own_name = {name.removeprefix(self.prefix): name for name in names}
        kept = self.click_prefixes if self.click_marker in by_own_name else ()
        return {
            own: name
            for own, name in by_own_name.items()
            if own.startswith(kept) or not own.startswith(self.ignored_prefixes)
        }

    def contains(self, names: Iterable[str]) -> bool:
        """Whether the file with these names has this layout."""
        return self.marker in self.own_names(names)

    def has_clicks(self, names: Iterable[str]) -> bool:
        """Whether the file with these names has a click head."""
        return self.click_marker in self.own_names(names)

    def is_unused(self, name: str) -> bool:
        """Whether a name (without `prefix`) matches one of the `unused` patterns."""
        return any(re.fullmatch(pattern, name) for pattern in self.unused)


def mlp(ours: str, theirs: str, layers: int, *, start: int = 1) -> dict[str, TensorSource]:
    """Return the table of an MLP. Our layers are numbered from 0; the file numbers them from `start`."""
    return {f"{ours}.layers.{i}": f"{theirs}{i + start}" for i in range(layers)}
