"""Label Studio's protocol for backends; a real Label Studio is in `test_label_studio_server`."""

from __future__ import annotations

import base64
import json

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from s3seg.errors import (
    ConfigurationError,
    FileTooLargeError,
    InvalidRequestError,
    UnavailableError,
)
from s3seg.inference.segmenter import Segmenter
from s3seg.integrations.label_studio import parse_config
from s3seg.integrations.label_studio_files import LabelStudioFiles
from s3seg.integrations.routes import ToolOptions, operations
from s3seg.results import masks
from tests.helpers.inference_system import PICTURES, ScriptedNetwork, png
from tests.integrations.running import KEY, same_mask, serving
from tests.integrations.test_roboflow import filled
from tests.results.test_brush_rle import decode_brush

pytestmark = pytest.mark.anyio
PARK = (PICTURES / "park.png").read_bytes()
PREFIX = "/label-studio"
AUTH = ("anyone", KEY)
TOOLS = ToolOptions(label_studio_url="http://studio.test", label_studio_api_key=SecretStr("a.b.c"))
CONFIG = """<View><Image name="image" value="$picture"/><{kind}Labels name="tag" toName="image">
<Label value="plant" hint="tree"/><Label value="cloud" background="red"/></{kind}Labels></View>"""


def task(content=PARK, number=1):
    return {"id": number, "data": {"picture": "data:image/png;base64," + base64.b64encode(content).decode()}}


def body(*tasks, kind="Brush"):
    return {"tasks": list(tasks) or [task()], "label_config": CONFIG.format(kind=kind), "project": "1.1", "params": {}}


async def test_health_is_open_and_setup_answers_the_version():
    async with serving("label-studio", options=TOOLS) as client:
        health = await client.get(f"{PREFIX}/health")
        setup = await client.post(f"{PREFIX}/setup", json={"schema": CONFIG.format(kind="Brush")}, auth=AUTH)
        versions = await client.get(f"{PREFIX}/versions", auth=AUTH)
    assert health.json()["status"] == "UP"
    model = Segmenter("embedded").model
    assert setup.json() == {"model_version": f"{model.name} {model.version}"}
    assert versions.json() == {"versions": [f"{model.name} {model.version}"]}


async def test_brush_masks_are_those_of_the_segmenter():
    async with serving("label-studio", options=TOOLS) as client:
        answer = await client.post(f"{PREFIX}/predict", json=body(), auth=AUTH)
    ((prediction,),) = answer.json()["results"]
    expected = Segmenter("embedded").segment(PARK, ["tree", "cloud"])
    instances = [*expected[0], *expected[1]]
    assert [region["value"]["brushlabels"] for region in prediction["result"]] == [["plant"], ["plant"], ["cloud"]]
    for region, instance in zip(prediction["result"], instances, strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("tag", "image", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (800, 640)
        assert region["score"] == pytest.approx(instance.score, abs=1e-4)
        assert same_mask(decode_brush(region["value"]["rle"], (640, 800))[:, :, 3] == 255, instance.mask)
    assert prediction["score"] == pytest.approx(np.mean([one.score for one in instances]), abs=1e-4)
    assert len({region["id"] for region in prediction["result"]}) == 3


async def test_polygons_and_rectangles_are_in_percent():
    async with serving("label-studio", options=TOOLS) as client:
        polygons = await client.post(f"{PREFIX}/predict", json=body(kind="Polygon"), auth=AUTH)
        rectangles = await client.post(f"{PREFIX}/predict", json=body(kind="Rectangle"), auth=AUTH)
    trees = Segmenter("embedded").segment(PARK, "tree")
    regions = [one for one in polygons.json()["results"][0][0]["result"] if one["value"]["polygonlabels"] == ["plant"]]
    paths = [np.round(np.array(region["value"]["points"]) * [8, 6.4]) for region in regions]
    outlined = filled(paths, (640, 800))
    assert (outlined & trees.union()).sum() / (outlined | trees.union()).sum() > 0.97
    assert max(map(len, paths)) < 120
    box = rectangles.json()["results"][0][0]["result"][0]["value"]
    x1, y1, x2, y2 = masks.box(trees[0].rle)
    assert [box["x"] * 8, box["y"] * 6.4] == pytest.approx([x1, y1], abs=2)
    assert [box["width"] * 8, box["height"] * 6.4] == pytest.approx([x2 - x1, y2 - y1], abs=2)


async def test_a_task_whose_picture_cannot_be_read_has_no_prediction_and_the_others_have():
    tasks = [task(png(), 1), {"id": 2, "data": {}}, task(b"no picture", 3), task(png(7), 4)]
    async with serving("label-studio", options=TOOLS, network=ScriptedNetwork()) as client:
        answer = await client.post(f"{PREFIX}/predict", json=body(*tasks), auth=AUTH)
        none = await client.post(f"{PREFIX}/predict", json=body(tasks[1]), auth=AUTH)
    assert [len(one) for one in answer.json()["results"]] == [1, 0, 0, 1]
    assert none.status_code == 400
    assert "no address of a picture" in none.json()["error"]["message"]


async def test_the_key_is_the_password():
    async with serving("label-studio", options=TOOLS, network=ScriptedNetwork()) as client:
        statuses = [
            (await client.post(f"{PREFIX}/setup", json={}, auth=auth)).status_code
            for auth in (AUTH, ("anyone", "wrong"), (KEY, ""), None)
        ]
    assert statuses == [200, 401, 401, 401]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("", "not valid XML"),
        ("<View/>", "there is no <BrushLabels>"),
        (CONFIG.format(kind="Brush").replace("toName='image'", "").replace("$picture", "$x") + "<", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View/>', "has a document type or an entity"),
        ("<View>" * 1000, "not valid XML"),
    ],
)
def test_configurations_that_cannot_be_used_are_told(config, told):
    with pytest.raises(InvalidRequestError, match=told):
        parse_config(config)


def test_a_comment_in_the_configuration_is_no_entity():
    assert parse_config("<!-- a -->" + CONFIG.format(kind="Polygon")).labels == {"plant": "tree", "cloud": "cloud"}


def test_the_address_and_the_key_of_label_studio_are_needed():
    with pytest.raises(ConfigurationError, match="S3SEG_LABEL_STUDIO_URL"):
        operations(["label-studio"], None)


# ---- pictures ----


def files(answer, key="legacy", url="http://studio.test/base"):
    return LabelStudioFiles(url, SecretStr(key), transport=httpx.MockTransport(answer))


async def test_pictures_come_from_the_configured_address_with_the_key():
    asked = []

    def answer(request):
        asked.append((str(request.url), request.headers["Authorization"]))
        return httpx.Response(200, content=b"picture")

    for address in ("/data/upload/1/a.png", "data/upload/1/a.png", "http://studio.test/data/upload/1/a.png"):
        assert await files(answer).read(address, key="image") == b"picture"
    assert {key for _, key in asked} == {"Token legacy"}
    assert [url for url, _ in asked] == [
        "http://studio.test/data/upload/1/a.png",
        "http://studio.test/base/data/upload/1/a.png",
        "http://studio.test/data/upload/1/a.png",
    ]


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest",
        "https://studio.test/a.png",
        "http://studio.test:81/a.png",
        "http://studio.test@evil.test/a.png",
        "//evil.test/a.png",
        "file:///etc/passwd",
        "http://[",
        "ftp://studio.test/a.png",
        "data:text/plain,hello",
        "data:image/png;base64,é",
        "/a\x1f.png",
        17,
        None,
    ],
)
async def test_no_other_address_is_asked(address):
    def answer(request):
        raise AssertionError(f"asked {request.url}")

    with pytest.raises(InvalidRequestError):
        await files(answer).read(address, key="image")


async def test_a_redirect_is_not_followed():
    def answer(request):
        return httpx.Response(302, headers={"Location": "http://evil.test/"})

    with pytest.raises(InvalidRequestError, match="answered 302"):
        await files(answer).read("/a.png", key="image")


async def test_a_personal_token_is_exchanged_once_and_again_when_it_has_expired():
    state = {"issued": 0}

    def answer(request):
        if request.url.path.endswith("/api/token/refresh"):
            assert json.loads(request.content) == {"refresh": "a.b.c"}
            state["issued"] += 1
            return httpx.Response(200, json={"access": f"access{state['issued']}"})
        fresh = request.headers["Authorization"] == f"Bearer access{state.get('valid', 1)}"
        return httpx.Response(200 if fresh else 401, content=b"picture")

    reader = files(answer, key="a.b.c")
    await reader.read("/a.png", key="image")
    await reader.read("/b.png", key="image")
    assert state["issued"] == 1
    state["valid"] = 2
    assert await reader.read("/c.png", key="image") == b"picture"
    assert state["issued"] == 2


@pytest.mark.parametrize("content", [b"<html>a page of something else</html>", b"[]", b"{}"])
async def test_an_answer_without_an_access_token_is_not_that_of_a_label_studio(content):
    with pytest.raises(ConfigurationError, match="S3SEG_LABEL_STUDIO_URL"):
        await files(lambda request: httpx.Response(200, content=content), key="a.b.c").read("/a.png", key="image")


async def test_refusals_large_pictures_and_silence_are_told_apart():
    def large(request):
        return httpx.Response(200, content=b"x" * (10 * 2**20 + 1))

    def silent(request):
        raise httpx.ConnectError("no")

    with pytest.raises(ConfigurationError, match="does not accept S3SEG_LABEL_STUDIO_API_KEY"):
        await files(lambda request: httpx.Response(401)).read("/a.png", key="image")
    with pytest.raises(ConfigurationError):
        await files(lambda request: httpx.Response(401), key="a.b.c").read("/a.png", key="image")
    with pytest.raises(FileTooLargeError):
        await files(large).read("/a.png", key="image")
    with pytest.raises(UnavailableError):
        await files(silent).read("/a.png", key="image")
