"""What the routes of all tools share: places, draining, clients that leave, and names of tools."""

from __future__ import annotations

import asyncio

import pytest

from s3seg.app import gpu_app
from s3seg.app.settings import Settings
from s3seg.errors import ConfigurationError
from s3seg.integrations import door
from tests.helpers.inference_system import ScriptedNetwork, png
from tests.integrations.running import KEY, serving
from tests.integrations.test_openai_route import ask

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def test_requests_beyond_the_places_are_answered_503(monkeypatch):
    monkeypatch.setattr(door, "_AT_ONCE", 1)
    monkeypatch.setattr(door, "_WAIT_S", 0.05)
    network = ScriptedNetwork()
    async with serving("openai", network=network) as client:
        network.go.clear()
        network.began.clear()
        first = asyncio.ensure_future(ask(client, image=png(), prompt="left"))
        await until(network.began.is_set)
        second = await ask(client, image=png(), prompt="left")
        network.go.set()
        assert (await first).status_code == 200
        third = await ask(client, image=png(), prompt="left")
    assert (second.status_code, second.json()["error"]["code"]) == (503, "UNAVAILABLE")
    assert int(second.headers["Retry-After"]) > 0
    assert third.status_code == 200


async def test_a_draining_service_answers_503():
    async with serving("openai", network=ScriptedNetwork()) as client:
        client.engine.worker.drain()
        assert (await ask(client, image=png(), prompt="left")).status_code == 503


async def test_requests_that_wait_together_share_forward_passes():
    network = ScriptedNetwork()
    async with serving("openai", network=network) as client:
        network.go.clear()
        asking = [asyncio.ensure_future(ask(client, image=png(color), prompt="left")) for color in range(6)]
        await until(lambda: sum(queue.load for queue in client.engine.batcher._queues) == 6)
        network.go.set()
        answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert max(network.encoded) > 1


async def test_a_picture_that_was_sent_before_is_not_encoded_again():
    network = ScriptedNetwork()
    async with serving("openai", network=network) as client:
        for prompt in ("left", "right"):
            await ask(client, image=png(3), prompt=prompt)
    assert sum(network.encoded) == 1


def test_a_tool_that_is_not_known_is_told_at_once(tmp_path):
    settings = Settings(data_dir=tmp_path, api_secret_key=KEY, integrations=("openai", "photoshop"))
    with pytest.raises(ConfigurationError, match="no integration 'photoshop'; choose from openai"):
        gpu_app(settings)
