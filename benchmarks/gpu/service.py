"""Our gpu service with full SAM 3 of random weights: ``python -m benchmarks.gpu.service PORT BUSY [--quick]``.

It writes to the file BUSY for how many seconds the network has computed so far, by CUDA events around its calls.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.network import RandomNetwork
from s3seg.app import gpu_app
from s3seg.app.settings import Settings
from s3seg.inference.stages import EncodedImage, ResizedImage
from s3seg.sam3.predictor import Detections, Query
from s3seg.web.logs import configure_logging
from s3seg.web.server import run_server

_WRITE_EVERY_S = 0.25


class TimedNetwork(RandomNetwork):
    """Adds up how long its calls take on the device, and counts what they did."""

    def __init__(self, busy: Path, *, device: torch.device, dtype: torch.dtype, quick: bool) -> None:
        super().__init__(device=device, dtype=dtype, quick=quick)
        self._busy, self._written = busy, 0.0
        self._spans: list[tuple[Any, Any]] = []
        self._done = {"seconds": 0.0, "images": 0, "image_passes": 0, "prompts": 0, "prompt_passes": 0}

    def encode(self, pictures: Sequence[ResizedImage]) -> list[EncodedImage]:
        """Encode pictures in one forward pass."""
        start = self._now()
        encoded = super().encode(pictures)
        self._spans.append((start, self._now()))
        self._done["images"] += len(pictures)
        self._done["image_passes"] += 1
        return encoded

    def predict(self, pairs: Sequence[tuple[EncodedImage, str | Query]]) -> list[Detections]:
        """Predict; the copies at its end have waited for everything before them."""
        start = self._now()
        detections = super().predict(pairs)
        self._spans.append((start, self._now()))
        self._done["prompts"] += len(pairs)
        self._done["prompt_passes"] += 1
        if time.monotonic() - self._written > _WRITE_EVERY_S:
            self._write()
        return detections

    def _now(self) -> Any:
        if self.predictor.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _write(self) -> None:
        for start, end in self._spans:
            if isinstance(start, float):
                self._done["seconds"] += end - start
            else:
                end.synchronize()
                self._done["seconds"] += start.elapsed_time(end) / 1000
        self._spans.clear()
        temporary = self._busy.with_suffix(".new")
        temporary.write_text(json.dumps(self._done))
        temporary.replace(self._busy)
        self._written = time.monotonic()


def main() -> None:
    """Serve until the process is ended."""
    port, busy, *rest = sys.argv[1:]
    quick = rest == ["--quick"]
    configure_logging("WARNING")
    device, dtype = (torch.device("cpu"), torch.float32) if quick else (torch.device("cuda"), torch.bfloat16)
    # it answers requests only: its own loop would take the prepared tasks before they are asked for
    settings = Settings(poll_s=3600)
    application = gpu_app(settings, load=lambda: TimedNetwork(Path(busy), device=device, dtype=dtype, quick=quick))
    run_server(application, host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main()
