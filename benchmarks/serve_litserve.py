"""LitServe with the same network, decoder and results: ``python -m benchmarks.serve_litserve real|held PORT DIR``.

A request names a picture on the disk and a prompt; masks and instances are made as ours are, and written to files.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

import litserve  # pyright: ignore[reportMissingImports] (of the group bench)

from benchmarks.held_network import held_network
from s3seg.inference.artifacts import make_artifacts
from s3seg.inference.making_results import make_result
from s3seg.results.instances_file import MIN_SCORE
from s3seg.tasks.model import Task


class SegmentApi(litserve.LitAPI):
    """What LitServe asks of a model."""

    def __init__(self, network: str, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self.kind, self.folder = network, folder

    def setup(self, device: str) -> None:
        """See `litserve.LitAPI.setup`."""
        from s3seg import checkpoints
        from s3seg.inference.stages import Sam3Network

        self.network: Any = held_network() if self.kind == "held" else Sam3Network(checkpoints.resolve("embedded"))

    def decode_request(self, request: dict[str, str]) -> tuple[Any, str]:
        """See `litserve.LitAPI.decode_request`."""
        return self.network.read(Path(request["path"]).read_bytes(), name="picture"), request["prompt"]

    def batch(self, inputs: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
        """See `litserve.LitAPI.batch`."""
        return inputs

    def predict(self, batch: list[tuple[Any, str]]) -> list[tuple[Any, str, Any]]:
        """See `litserve.LitAPI.predict`."""
        encoded = self.network.encode([picture for picture, _ in batch])
        detections = self.network.predict([(image, prompt) for image, (_, prompt) in zip(encoded, batch, strict=True)])
        return [(image.size, prompt, one) for image, (_, prompt), one in zip(encoded, batch, detections, strict=True)]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """See `litserve.LitAPI.unbatch`."""
        return output

    def encode_response(self, output: tuple[Any, str, Any]) -> dict[str, Any]:
        """See `litserve.LitAPI.encode_response`."""
        size, prompt, detections = output
        timings = {"image": 0.0, "prompt": 0.0}
        result = make_result(self.network, size, prompt, detections, threshold=MIN_SCORE, timings=timings)
        threshold, kinds = self.network.threshold, self.network.prompt_kinds
        artifacts = make_artifacts(_task(prompt), [result], threshold=threshold, prompt_kinds=kinds, url=str)
        for key, body in artifacts.objects.items():
            (self.folder / key.rpartition("/")[2]).write_bytes(body)
        return {"labels": list(artifacts.outcome.labels), "confidence": artifacts.outcome.metadata["confidence"]}


def _task(prompt: str) -> Task:
    from datetime import UTC, datetime

    from s3seg.tasks.model import TaskStatus

    now = datetime.now(UTC)
    some = str(uuid.uuid4())
    return Task(
        task_id=some,
        user_id=some,
        project_id=None,
        image_id=None,
        source_image_url="",
        prompts=(prompt,),
        status=TaskStatus.PROCESSING,
        created_at=now,
        updated_at=now,
        deadline=now,
    )


if __name__ == "__main__":
    network, port, folder = sys.argv[1:]
    # LitServe 0.2.19 serves MCP where `mcp` is installed, as it is here, and fails unless `fastmcp` is, too
    litserve.server._MCP_AVAILABLE = False
    # its documentation's advice: the largest batch that fits, and a short wait for it to fill
    api = SegmentApi(network, Path(folder), max_batch_size=8, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu", timeout=120).run(
        host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning"
    )
