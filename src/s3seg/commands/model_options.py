"""The options of ``serve`` and ``worker`` that choose the model, and fetch its weights first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from s3seg.app.settings import Settings

Checkpoint = Annotated[str | None, typer.Option(help="Weights: embedded, litetext, sam3, a repo id or a path.")]
Device = Annotated[str | None, typer.Option(help="auto, cuda:0, mps, cpu; or several: cuda:0,cuda:1.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")]

Pull = Annotated[
    bool,
    typer.Option("--pull", help="First download the weights if they are not on this machine, as `models pull` does."),
]
AcceptLicense = Annotated[
    bool,
    typer.Option(
        "--accept-license", envvar="S3SEG_ACCEPT_LICENSE", help="With --pull: accept the licences of the weights."
    ),
]


def pull_if_missing(checkpoint: str | None, *, accept_license: bool) -> None:
    """Download a checkpoint unless it is on this machine.

    Raises:
        CheckpointError: It cannot be downloaded; the message says why.
        ConfigurationError: None is named, and this machine has only the one in the package.
    """
    from s3seg import checkpoints
    from s3seg.errors import CheckpointNotFoundError, ConfigurationError

    try:
        found = checkpoints.resolve(checkpoint)
        if checkpoint is None and found.origin == "embedded":
            raise ConfigurationError(
                "--pull needs a name: set --checkpoint or S3SEG_CHECKPOINT, for example to litetext"
            )
    except CheckpointNotFoundError:
        if checkpoint is None:
            raise
        from s3seg.commands.models import download
        from s3seg.commands.terminal import Terminal

        download(checkpoint, Terminal(), accept_license=accept_license)


def model_settings(checkpoint: str | None, device: str | None, dtype: str | None) -> Settings:
    """Return the settings of the environment, overridden by the options that were given.

    Raises:
        ConfigurationError: A setting cannot work.
    """
    from s3seg.app.settings import Settings

    options: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "dtype": dtype}
    return Settings(**{name: value for name, value in options.items() if value is not None})
