"""`s3seg.local`, the service over HTTP and `Segmenter` give the same instances at the same threshold."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

import s3seg
from s3seg import checkpoints
from s3seg.app import local_keys, whole_app
from s3seg.app.settings import Settings
from s3seg.client import AsyncClient

pytestmark = pytest.mark.anyio
STREET = Path(__file__).parents[2] / "examples" / "pictures" / "street.png"
PROMPTS = ["car", "house", "xylophone"]


@pytest.fixture(scope="module")
def threshold() -> float:
    """Less than the second car's score in float64, and the same in float32."""
    scores = s3seg.Segmenter("embedded", device="cpu").segment(STREET, PROMPTS, threshold=0.1)[0].scores
    assert len(scores) > 2
    assert scores[1] > scores[2]
    below = float(np.nextafter(np.float64(scores[1]), 0))
    assert below < float(scores[1])
    assert np.float32(below) == scores[1]
    return below


@pytest.fixture(scope="module")
def checkpoint(threshold, tmp_path_factory) -> Path:
    """The embedded checkpoint with this threshold."""
    folder = tmp_path_factory.mktemp("checkpoint") / "embedded"
    shutil.copytree(checkpoints.resolve("embedded").folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["s3seg"]["threshold"] = threshold
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint) -> list[s3seg.Segmentation]:
    return s3seg.Segmenter(checkpoint, device="cpu").segment(STREET, PROMPTS)


def settings(checkpoint: Path, **options) -> Settings:
    return Settings(_env_file=None, checkpoint=str(checkpoint), device="cpu", rate_limits="off", **options)


def same(found: list[s3seg.Segmentation], expected: list[s3seg.Segmentation]) -> None:
    assert [result.prompt for result in found] == PROMPTS
    for one, other in zip(found, expected, strict=True):
        unlike = {"timings": {}, "source": None, "image": None}
        assert dataclasses.replace(one, **unlike) == dataclasses.replace(other, **unlike)


def test_a_score_at_the_threshold_in_float32_is_left_out(expected, threshold):
    assert {result.threshold for result in expected} == {threshold}
    assert len(expected[0]) == 1


async def test_local_gives_what_a_segmenter_gives(checkpoint, expected):
    memory = {"object_store": "memory", "task_store": "memory", "welcome_credits": 100}
    async with s3seg.local(settings(checkpoint, **memory)) as service:
        same(await service.segment(STREET.read_bytes(), PROMPTS), expected)


async def test_the_service_gives_a_client_what_a_segmenter_gives(checkpoint, expected, tmp_path):
    chosen = settings(checkpoint, data_dir=tmp_path, public_base_url="http://edge.example/files")
    app = whole_app(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        client = AsyncClient("http://edge.example", local_keys(chosen).mint("ann"), http=http)
        same(await client.segment(STREET, PROMPTS), expected)
