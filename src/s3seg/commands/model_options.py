"""The options of ``serve`` and ``worker`` that choose the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from s3seg.app.settings import Settings

Checkpoint = Annotated[str | None, typer.Option(help="Weights: embedded, litetext, sam3, a repo id or a path.")]
Device = Annotated[str | None, typer.Option(help="auto, cuda:0, mps, cpu.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")]


def model_settings(checkpoint: str | None, device: str | None, dtype: str | None) -> Settings:
    """Return the settings of the environment, overridden by the options that were given.

    Raises:
        ConfigurationError: A setting cannot work.
    """
    from s3seg.app.settings import Settings

    options: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "dtype": dtype}
    return Settings(**{name: value for name, value in options.items() if value is not None})
