"""`ModelInfo`: which network made a result, and how it ran."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The network that found the instances, and the device and precision it ran with.

    Attributes:
        name: of the checkpoint, such as "embedded" or "sam3".
        version: of the checkpoint.
        device: such as "cpu", "cuda:0" or "mps".
        dtype: such as "float32" or "bfloat16".
        summary: one line on what the model can find, if the checkpoint has one, as the embedded one does.
    """

    name: str
    version: str
    device: str
    dtype: str
    summary: str | None = None
