"""The route beside OpenAI's image routes: the requests of its documentation, and what hostile clients send."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from s3seg.errors import InferenceError
from s3seg.inference.segmenter import Segmenter
from s3seg.integrations import openai_route
from s3seg.integrations.openai_route import SegmentationsResponse
from tests.helpers.inference_system import PICTURES, ScriptedNetwork, png
from tests.helpers.pictures import encoded
from tests.integrations.running import KEY, same_mask, serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of pycocotools
]
PATH = "/v1/images/segmentations"
PARK = (PICTURES / "park.png").read_bytes()
BEARER = {"Authorization": f"Bearer {KEY}"}


async def ask(client, *, image=PARK, headers=BEARER, **fields):
    return await client.post(PATH, files={"image": ("park.png", image)}, data=fields, headers=headers)


async def test_png_masks_are_those_of_the_segmenter():
    async with serving("openai") as client:
        answer = await ask(client, prompt="tree")
    assert answer.status_code == 200
    told = SegmentationsResponse.model_validate(answer.json())
    expected = Segmenter("embedded").segment(PARK, "tree")
    assert (told.width, told.height, told.mask_format) == (800, 640, "png")
    assert [one.score for one in told.data] == pytest.approx(expected.scores.tolist(), abs=1e-4)
    for one, instance in zip(told.data, expected, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(one.mask)))
        assert picture.mode == "L"
        assert set(np.unique(picture)) == {0, 255}
        assert same_mask(np.asarray(picture) == 255, instance.mask)
        assert one.box == pytest.approx(instance.box, abs=0.1)


async def test_rle_masks_are_read_by_pycocotools():
    async with serving("openai") as client:
        answer = await ask(client, prompt="tree", mask_format="rle")
    expected = Segmenter("embedded").segment(PARK, "tree")
    for one, instance in zip(answer.json()["data"], expected, strict=True):
        assert same_mask(coco.decode(one["mask"]).astype(bool), instance.mask)


async def test_boxes_show_what_to_find_and_what_not():
    boxes = [[559, 192, 760, 418], [247, 8, 413, 145]]
    async with serving("openai") as client:
        alone = await ask(client, boxes=json.dumps(boxes[:1]), mask_format="rle")
        both = await ask(
            client, prompt="tree", boxes=json.dumps(boxes), box_labels="[1, 0]", mask_format="rle", threshold="0.2"
        )
    segmenter = Segmenter("embedded")
    expected = segmenter.segment(PARK, boxes=boxes[:1])
    assert len(expected) > 0
    for one, instance in zip(alone.json()["data"], expected, strict=True):
        assert same_mask(coco.decode(one["mask"]).astype(bool), instance.mask)
    expected = segmenter.segment(PARK, "tree", boxes=boxes[:1], negative_boxes=boxes[1:], threshold=0.2)
    assert [one["score"] for one in both.json()["data"]] == pytest.approx(expected.scores.tolist(), abs=1e-4)


async def test_threshold_and_number_of_instances_can_be_chosen():
    async with serving("openai", network=ScriptedNetwork()) as client:
        found = [
            len((await ask(client, image=png(), prompt="left", **fields)).json()["data"])
            for fields in ({}, {"threshold": "0.2"}, {"threshold": "0.2", "max_instances": "1"}, {"threshold": "0.8"})
        ]
    assert found == [1, 2, 1, 0]


@pytest.mark.parametrize("headers", [BEARER, {"X-API-Key": KEY}, {"Authorization": f"bearer  {KEY}"}])
async def test_the_key_is_a_bearer_token_or_our_own_header(headers):
    async with serving("openai", network=ScriptedNetwork()) as client:
        assert (await ask(client, image=png(), prompt="left", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, "AUTH_REQUIRED"), ({"Authorization": "Bearer x"}, "AUTH_INVALID"), ({"X-API-Key": "\u00e4"}, "AUTH_INVALID")],
)
async def test_without_the_key_nothing_is_read(headers, code):
    async with serving("openai", network=ScriptedNetwork()) as client:
        encoded_headers = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = await ask(client, image=b"x" * 10**6, headers=encoded_headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({}, 400, "there is no prompt"),
        ({"prompt": "x" * 501}, 400, "500 characters"),
        ({"prompt": "x", "boxes": "[[0, 0, 5]]"}, 400, "boxes: must be JSON such as"),
        ({"prompt": "x", "boxes": "[" * 9000}, 400, "boxes: must be JSON such as"),
        ({"prompt": "x", "boxes": "[[0, 0, NaN, 5]]"}, 400, "box"),
        ({"prompt": "x", "boxes": json.dumps([[0, 0, 4, 4]] * 65)}, 400, "a prompt may have 64"),
        ({"prompt": "x", "boxes": "[[900, 900, 950, 950]]"}, 400, "no part of the box"),
        ({"prompt": "x", "boxes": "[[0, 0, 4, 4]]", "box_labels": "[1, 0]"}, 400, "got 2 labels for 1 boxes"),
        ({"prompt": "x", "mask_format": "gif"}, 400, "mask_format"),
        ({"prompt": "x", "threshold": "nan"}, 400, "threshold"),
        ({"prompt": "x", "image": b"not a picture"}, 400, "the picture"),
        ({"prompt": "x", "image": b"x" * (10 * 2**20 + 1)}, 413, "10 MB"),
    ],
)
async def test_what_cannot_be_used_is_told(fields, status, told):
    async with serving("openai") as client:
        answer = await ask(client, **fields)
    assert answer.status_code == status
    assert told in answer.json()["error"]["message"]


async def test_an_error_of_the_network_is_told_and_the_next_request_is_served():
    network = ScriptedNetwork()
    async with serving("openai", network=network) as client:
        network.fail = [InferenceError("broken")]
        answers = [await ask(client, image=png(9), prompt="left"), await ask(client, image=png(9), prompt="left")]
    assert [answer.status_code for answer in answers] == [500, 200]


async def test_too_many_large_png_masks_are_refused(monkeypatch):
    monkeypatch.setattr(openai_route, "_MAX_MASK_PIXELS", 100)
    async with serving("openai", network=ScriptedNetwork()) as client:
        answer = await ask(client, image=encoded(size=(20, 20)), prompt="left")
        rle = await ask(client, image=encoded(size=(20, 20)), prompt="left", mask_format="rle")
    assert "mask_format=rle" in answer.json()["error"]["message"]
    assert rle.status_code == 200


async def test_the_route_is_there_only_if_asked_for_and_is_documented():
    async with serving() as client:
        assert (await client.post(PATH)).status_code == 404
        assert PATH not in (await client.get("/openapi.json")).json()["paths"]
    async with serving("openai") as client:
        described = (await client.get("/openapi.json")).json()["paths"][PATH]["post"]
    fields = described["requestBody"]["content"]["multipart/form-data"]["schema"]["allOf"]
    assert fields[1]["required"] == ["image"]
