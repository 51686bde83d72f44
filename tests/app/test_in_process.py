"""`s3seg.local`, the service over HTTP and `Segmenter` give the same instances at the same threshold."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

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
    assert len(scores) == 2
    assert scores[0] > scores[1]
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


@pytest.fixture(scope="module")
def memory(checkpoint) -> Settings:
    return settings(checkpoint, object_store="memory", task_store="memory", welcome_credits=100)


async def test_local_takes_and_gives_what_a_client_does(memory, expected, tmp_path):
    (entry,) = [entry for entry in os.scandir(STREET.parent) if entry.name == STREET.name]
    at_end = io.BytesIO(STREET.read_bytes())
    at_end.seek(0, io.SEEK_END)
    picture = Image.open(STREET)
    picture.save(tmp_path / "street.bmp")
    async with s3seg.local(memory) as service:
        for source in (STREET, str(STREET), entry, at_end, picture, np.asarray(picture.convert("RGB"))):
            found = await service.segment(source, "car")
            assert isinstance(found, s3seg.Segmentation)
            assert (found.prompt, len(found)) == ("car", len(expected[0]))
            assert np.array_equal(found.image, expected[0].image)
        assert (await service.segment(str(STREET), "car")).source == str(STREET)
        assert (await service.segment(tmp_path / "street.bmp", "car")).rles == expected[0].rles
        stored = await service.upload(STREET)
        assert (await service.segment(stored, "car\n")).rles == expected[0].rles
        one = await service.segment(stored, ["car"], threshold=0.1, max_instances=1)
        assert [len(result) for result in one] == [1]
        doubled = await service.segment(stored, ["house", "car", "house"])
        assert [result.prompt for result in doubled] == ["house", "car", "house"]
        task = await service.submit(stored, "car, house")
        assert task.prompts == ("car, house",)


async def test_duplicate_prompts_cost_one_credit(checkpoint, tmp_path):
    chosen = settings(checkpoint, data_dir=tmp_path, public_base_url="http://edge.example/files", decode_processes=0)
    app = whole_app(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        client = AsyncClient("http://edge.example", local_keys(chosen).mint("ann"), http=http)
        credits = (await client.me()).credits
        found = await client.segment(STREET, ["house", "car", " house"])
        assert [result.prompt for result in found] == ["house", "car", "house"]
        assert (await client.me()).credits == credits - 2


@pytest.mark.parametrize("prompt", ["", [], b"car", ["car", 5], ["car\0"], None])
async def test_what_is_no_prompt_is_refused_before_the_picture_is_read(memory, prompt):
    service = s3seg.local(memory)
    with pytest.raises(s3seg.errors.PromptError):
        await service.segment("nowhere.png", prompt)


@pytest.mark.parametrize("source", ["nowhere.png", b"no picture", 5, None])
async def test_what_is_no_picture_is_refused(memory, source):
    service = s3seg.local(memory)
    with pytest.raises(s3seg.errors.ImageDecodeError):
        await service.segment(source, "car")
