"""Starting the network in a process of its own, as the settings say."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3seg.app.settings import Settings
    from s3seg.checkpoints import Checkpoint
    from s3seg.inference.accelerator.process import PredictorProcess
    from s3seg.sam3.predictor import Predictor


def start_process(checkpoint: Checkpoint, device: str, settings: Settings) -> PredictorProcess:
    """Start the process of a device, and wait until it has loaded the checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be loaded, or the process ended meanwhile.
        InvalidRequestError: The device or precision is not available on this machine.
    """
    from s3seg.checkpoints.read_ahead import read_ahead
    from s3seg.inference.accelerator.process import PredictorProcess

    read_ahead(checkpoint.files)  # while the process imports PyTorch
    load = partial(load_predictor, checkpoint.path, device=device, dtype=settings.dtype, compile=settings.compile)
    return PredictorProcess(load, device=device)


def load_predictor(path: Path, *, device: str, dtype: str, compile: bool | None) -> Predictor:
    """Load a checkpoint in the process of its device, whose logs say which it is. Called there."""
    from s3seg.inference.quick_imports import collector_paused

    with collector_paused():
        from s3seg.sam3.predictor import Predictor
    from s3seg.web.logs import configure_logging

    configure_logging(fields={"device": device})
    return Predictor.from_path(path, device=device, dtype=dtype, compile=compile)
