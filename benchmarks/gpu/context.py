"""What every part of the measurement works with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.report import Report


@dataclass(frozen=True, slots=True)
class Context:
    """A part's surroundings.

    Attributes:
        device: Where the network runs.
        quick: Whether tiny networks are used, to try the commands without a card.
        report: Where figures go.
        deadline: When the part has to end.
        runs: How often a thing is timed, at most.
    """

    device: torch.device
    quick: bool
    report: Report
    deadline: Deadline
    runs: int = 30
