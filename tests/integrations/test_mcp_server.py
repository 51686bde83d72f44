"""The MCP server, asked by the protocol's own client: in memory, over standard input and output, and over HTTP."""

from __future__ import annotations

import base64
import io
import os
import sys

import httpx2
import numpy as np
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from s3seg.errors import CheckpointNotFoundError
from s3seg.inference.segmenter import Segmenter
from s3seg.integrations import mcp_server
from s3seg.integrations.mcp_server import build_server
from s3seg.integrations.picture_access import PictureAccess
from s3seg.results import masks
from tests.helpers.inference_system import PICTURES
from tests.helpers.processes import Process, free_port, wait_until_listening
from tests.helpers.small_things import circles
from tests.integrations.running import same_mask

pytestmark = pytest.mark.anyio
CLI = "from s3seg.cli import main; main()"
PARK = {"image": "park.png", "prompts": ["tree", "cloud", "unicorn"]}
KEY = "a long key of the tests"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("embedded")


@pytest.fixture
def server(segmenter):
    return build_server(lambda: segmenter, PictureAccess([PICTURES]))


async def test_every_tool_and_argument_is_described(server):
    async with Client(server) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"list_pictures", "segment", "count", "draw", "cut_out"}
    for tool in tools.values():
        assert len(tool.description) > 40
        assert tool.annotations.read_only_hint
        for argument in tool.input_schema["properties"].values():
            assert len(argument["description"]) > 10
    assert "what to look for" in str(tools["segment"].input_schema).lower()


async def test_segment_returns_what_the_segmenter_finds(server, segmenter):
    async with Client(server) as client:
        answer = (await client.call_tool("segment", {**PARK, "masks": True})).structured_content
    expected = segmenter.segment(PICTURES / "park.png", PARK["prompts"])
    assert (answer["width"], answer["height"]) == (800, 640)
    assert [one["count"] for one in answer["results"]] == [len(one) for one in expected] == [2, 1, 0]
    for told, result in zip(answer["results"], expected, strict=True):
        for one, instance in zip(told["instances"], result, strict=True):
            mask = masks.decode(masks.RLE((640, 800), one["rle"]))
            assert same_mask(mask, instance.mask)
            assert one["area"] == mask.sum()
            assert one["box"] == list(masks.box(masks.encode(mask)))


async def test_a_picture_may_come_as_a_data_url(server):
    url = "data:image/png;base64," + base64.b64encode((PICTURES / "park.png").read_bytes()).decode()
    async with Client(server) as client:
        answer = await client.call_tool("count", {"image": url, "prompts": ["tree", "cloud"]})
    assert answer.structured_content == {"tree": 2, "cloud": 1}


async def test_draw_returns_the_picture_with_the_instances_on_it(server):
    async with Client(server) as client:
        (content,) = (await client.call_tool("draw", PARK)).content
    assert content.mime_type == "image/jpeg"
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(content.data))).convert("RGB")).astype(int)
    plain = np.asarray(Image.open(PICTURES / "park.png").convert("RGB")).astype(int)
    changed = np.abs(drawn - plain).max(axis=2) > 40
    tree, sky = changed[161:391, 31:232].mean(), changed[0:100, 600:790].mean()
    assert tree > 0.3 > 0.05 > sky


async def test_cut_outs_are_transparent_outside_their_masks(server, segmenter):
    async with Client(server) as client:
        every = (await client.call_tool("cut_out", {"image": "park.png", "prompt": "tree"})).content
        second = (await client.call_tool("cut_out", {"image": "park.png", "prompt": "tree", "number": 2})).content
        nothing = (await client.call_tool("cut_out", {"image": "park.png", "prompt": "unicorn"})).content
        absent = await client.call_tool("cut_out", {"image": "park.png", "prompt": "tree", "number": 3})
    assert [len(every), len(second), len(nothing)] == [2, 1, 0]
    assert every[1].data == second[0].data
    tree = segmenter.segment(PICTURES / "park.png", "tree")[0]
    piece = Image.open(io.BytesIO(base64.b64decode(every[0].data)))
    assert abs(int((np.asarray(piece)[:, :, 3] > 0).sum()) - tree.area) < 10
    assert absent.is_error
    assert "there is no instance 3 of 'tree': 2 were found" in absent.content[0].text


@pytest.mark.parametrize("tile", [300, "auto"])
async def test_every_tool_looks_into_tiles_if_it_is_told_to(segmenter, tmp_path, tile):
    (tmp_path / "small.png").write_bytes(circles())
    asked = {"image": "small.png", "prompts": ["red circle"]}
    expected = len(segmenter.segment(tmp_path / "small.png", "red circle", tile=tile))
    async with Client(build_server(lambda: segmenter, PictureAccess([tmp_path]))) as client:
        whole = (await client.call_tool("count", asked)).structured_content
        tiles = (await client.call_tool("count", {**asked, "tile": tile})).structured_content
        listed = (await client.call_tool("segment", {**asked, "tile": tile})).structured_content
        (plain,) = (await client.call_tool("draw", asked)).content
        (drawn,) = (await client.call_tool("draw", {**asked, "tile": tile})).content
        cut = {"image": "small.png", "prompt": "red circle", "tile": tile}
        (ninth,) = (await client.call_tool("cut_out", {**cut, "number": 9})).content
    assert whole["red circle"] < 9 == expected
    assert tiles == {"red circle": 9}
    assert listed["results"][0]["count"] == 9
    assert drawn.data != plain.data
    assert max(Image.open(io.BytesIO(base64.b64decode(ninth.data))).size) < 60


async def test_answers_are_bounded(server, monkeypatch):
    monkeypatch.setattr(mcp_server, "_MAX_INSTANCES", 1)
    monkeypatch.setattr(mcp_server, "_MAX_RLE_CHARACTERS", 10)
    monkeypatch.setattr(mcp_server, "_MAX_CUT_OUTS", 1)
    monkeypatch.setattr(mcp_server, "_CUT_OUT_SIDE", 50)
    async with Client(server) as client:
        answer = (await client.call_tool("segment", {**PARK, "masks": True})).structured_content
        pieces = (await client.call_tool("cut_out", {"image": "park.png", "prompt": "tree"})).content
    trees = answer["results"][0]
    assert (trees["count"], len(trees["instances"]), trees["instances"][0]["rle"]) == (2, 1, None)
    assert "the best 1 instances" in answer["note"]
    assert "2 masks were left out" in answer["note"]
    (piece,) = pieces
    assert max(Image.open(io.BytesIO(base64.b64decode(piece.data))).size) == 50


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({**PARK, "image": "/etc/passwd"}, "is not a file below"),
        ({**PARK, "prompts": [" "]}, "the prompt is empty"),
        ({**PARK, "prompts": ["x"] * 17}, "at most 16 items"),
        ({**PARK, "threshold": 2}, "less than or equal to 1"),
        ({**PARK, "tile": 31}, "tile is 'auto' or a whole number of pixels, 32 or more, got 31"),
        ({**PARK, "tile": "small"}, "'auto'"),
    ],
)
async def test_errors_tell_the_agent_what_to_change(server, arguments, told):
    async with Client(server) as client:
        answer = await client.call_tool("segment", arguments)
    assert answer.is_error
    assert told in answer.content[0].text


async def test_an_error_of_loading_the_model_reaches_the_agent_and_loading_is_tried_again(segmenter):
    outcomes = [CheckpointNotFoundError("no such checkpoint"), segmenter]

    def load():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async with Client(build_server(load, PictureAccess([PICTURES]))) as client:
        first = await client.call_tool("count", PARK)
        second = await client.call_tool("count", PARK)
    assert "no such checkpoint" in first.content[0].text
    assert second.structured_content["tree"] == 2


async def test_calls_beyond_those_that_may_wait_are_refused(server, monkeypatch):
    monkeypatch.setattr(mcp_server, "_MAX_WAITING", 0)
    async with Client(server) as client:
        answer = await client.call_tool("count", PARK)
    assert "too many calls are waiting" in answer.content[0].text


@pytest.mark.slow
async def test_the_command_serves_standard_input_and_output():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["-c", CLI, "mcp", "--folder", str(PICTURES), "--checkpoint", "embedded"]
    parameters = StdioServerParameters(command=sys.executable, args=command, env=environment)
    async with Client(parameters) as client:
        answer = await client.call_tool("count", PARK)
    assert answer.structured_content == {"tree": 2, "cloud": 1, "unicorn": 0}


@pytest.mark.slow
async def test_the_command_serves_http_for_whoever_has_the_key(tmp_path):
    port = free_port()
    command = ["mcp", "--http", "--port", str(port), "--folder", str(PICTURES), "--checkpoint", "embedded"]
    process = Process(CLI, *command, log=tmp_path / "log", API_SECRET_KEY=KEY)
    process.start()
    try:
        wait_until_listening(port)
        url = f"http://127.0.0.1:{port}/mcp"
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
            async with Client(streamable_http_client(url, http_client=http)) as client:
                answer = await client.call_tool("count", PARK)
            elsewhere = await http.post(url, json={}, headers={"Host": "evil.example"})
        async with httpx2.AsyncClient() as http:
            refused = await http.post(url, json={})
            wrong = await http.post(url, json={}, headers={"X-API-Key": "another key"})
        with pytest.raises((MCPError, ExceptionGroup)):
            async with Client(url) as client:
                await client.list_tools()
    finally:
        process.kill()
    assert answer.structured_content == {"tree": 2, "cloud": 1, "unicorn": 0}
    assert (refused.status_code, wrong.status_code, elsewhere.status_code) == (401, 401, 421)
    assert KEY not in process.log
