"""The worker and pipeline of the gpu service around a network that needs no PyTorch and finds one square."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from s3seg.app import Parts
from s3seg.inference.pipeline import Pipeline
from s3seg.inference.worker import Worker, WorkerLimits
from s3seg.results import masks
from s3seg.results.segmentation import ModelInfo, Segmentation
from s3seg.web.logs import configure_logging


class Square:
    """Sees a square in every picture, with a score that tells whether it was asked for tiles.

    Where it is shown by clicks, the square ends at the first of them.
    """

    threshold = 0.5
    prompt_kinds = ("words", "boxes", "clicks")

    async def segment(
        self, content, prompts, *, objects=(), concept=None, tile=None, name, user_id="", on_begin=lambda: None
    ):
        on_begin()
        await asyncio.sleep(0.03)
        mask = np.zeros((6, 8), dtype=bool)
        end = int(objects[0].points[0][0]) + 1 if objects and objects[0].points else 5
        mask[1:4, 2:end] = True
        return [
            Segmentation(
                prompt=prompt,
                size=(6, 8),
                rles=(masks.encode(mask),),
                boxes=np.array([[2, 1, 5, 4]], np.float32),
                scores=np.array([0.9 if tile is None else 0.8], np.float32),
                presence=0.9,
                threshold=0.1,
                model=ModelInfo("square", "1", "cpu", "float32"),
                timings={"image": 1.0, "prompt": 1.0},
            )
            for prompt in prompts
        ]


async def work() -> None:
    parts = Parts()
    with ThreadPoolExecutor(2) as cpu:
        settings = parts.settings
        square = Square()
        pipeline = Pipeline(parts.task_queue, parts.objects, lambda: square, cpu=cpu, lease_s=settings.lease_s)
        limits = WorkerLimits(claimed=8, lease_s=settings.lease_s, poll_s=settings.poll_s)
        Worker(parts.task_queue, pipeline, limits=limits).start()
        await asyncio.Event().wait()


def main() -> None:
    configure_logging()
    asyncio.run(work())
