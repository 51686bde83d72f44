"""X-AnyLabeling's remote protocol, asked as its documentation shows."""

from __future__ import annotations

import base64

import pytest

from s3seg.inference.segmenter import Segmenter
from tests.helpers.inference_system import PICTURES, ScriptedNetwork, png
from tests.helpers.pictures import encoded
from tests.integrations.running import KEY, same_mask, serving
from tests.integrations.test_roboflow import filled

pytestmark = pytest.mark.anyio
PARK = (PICTURES / "park.png").read_bytes()
TOKEN = {"Token": KEY}
PREFIX = "/x-anylabeling"


def body(text, *, content=PARK, data_url=True, model="s3seg", **params):
    image = base64.b64encode(content).decode()
    return {
        "model": model,
        "image": f"data:image/png;base64,{image}" if data_url else image,
        "params": {"text_prompt": text, **params},
    }


async def test_health_is_open_and_says_whether_the_model_is_loaded():
    async with serving("x-anylabeling", network=ScriptedNetwork()) as client:
        answer = (await client.get(f"{PREFIX}/health")).json()
    assert (answer["status"], answer["models_loaded"]) == ("healthy", 1)
    assert answer["timestamp"].endswith("Z")


async def test_the_model_is_listed_with_the_widgets_of_a_text_model():
    async with serving("x-anylabeling") as client:
        listed = (await client.get(f"{PREFIX}/v1/models", headers=TOKEN)).json()
        info = (await client.get(f"{PREFIX}/v1/models/s3seg/info", headers=TOKEN)).json()
    assert listed["success"] is True
    model = listed["data"]["s3seg"]
    widgets = {one["name"]: one["value"] for one in model["widgets"]}
    assert {"edit_text", "button_send"} <= set(widgets)
    for name in ("edit_conf", "mask_fineness_slider", "toggle_preserve_existing_annotations"):
        assert widgets[name] is not None  # the documentation demands a value
    assert widgets["edit_conf"] == pytest.approx(Segmenter("embedded").metadata.threshold, abs=0.005)
    assert info["data"] == {"model_id": "s3seg", **model}


@pytest.mark.parametrize("data_url", [True, False])
async def test_shapes_are_the_outlines_of_the_masks(data_url):
    async with serving("x-anylabeling") as client:
        answer = await client.post(
            f"{PREFIX}/v1/predict", json=body("tree.cloud", data_url=data_url, epsilon_factor=0), headers=TOKEN
        )
    assert answer.status_code == 200
    shapes = answer.json()["data"]["shapes"]
    trees, clouds = Segmenter("embedded").segment(PARK, ["tree", "cloud"])
    for label, result in (("tree", trees), ("cloud", clouds)):
        own = [shape for shape in shapes if shape["label"] == label]
        assert {shape["shape_type"] for shape in own} == {"polygon"}
        assert all(shape["points"][0] == shape["points"][-1] for shape in own)
        scores = list(dict.fromkeys(shape["score"] for shape in own))
        assert scores == pytest.approx(result.scores.tolist(), abs=1e-4)
        assert same_mask(filled([shape["points"][:-1] for shape in own], result.size), result.union())


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
async def test_every_documented_format_and_parameters_of_other_models_are_taken(format_):
    content = encoded(format_, size=(8, 6))
    async with serving("x-anylabeling", network=ScriptedNetwork()) as client:
        answer = await client.post(
            f"{PREFIX}/v1/predict",
            json=body("left", content=content, conf_threshold=0.3, iou_threshold=0.5),
            headers=TOKEN,
        )
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["data"]) == {"shapes", "description"}
    (shape,) = answer.json()["data"]["shapes"]
    assert set(shape) == {
        *("label", "shape_type", "points", "score", "attributes", "description", "difficult", "direction", "flags"),
        *("group_id", "kie_linking"),
    }


async def test_coarse_outlines_have_few_points_and_almost_the_same_area():
    async with serving("x-anylabeling") as client:
        fine, coarse = [
            (await client.post(f"{PREFIX}/v1/predict", json=body("tree", epsilon_factor=one), headers=TOKEN)).json()
            for one in (0, 0.002)
        ]
    assert len(fine["data"]["shapes"]) == len(coarse["data"]["shapes"])
    points = [sum(len(shape["points"]) for shape in one["data"]["shapes"]) for one in (fine, coarse)]
    assert points[1] < points[0] / 4
    for exact, simple in zip(fine["data"]["shapes"], coarse["data"]["shapes"], strict=True):
        masks = [filled([shape["points"][:-1]], (640, 800)) for shape in (exact, simple)]
        assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.97


async def test_the_threshold_is_used():
    counts = []
    async with serving("x-anylabeling", network=ScriptedNetwork()) as client:
        for threshold in (0.2, 0.5, 0.9):
            answer = await client.post(
                f"{PREFIX}/v1/predict", json=body("left", content=png(), conf_threshold=threshold), headers=TOKEN
            )
            counts.append(len(answer.json()["data"]["shapes"]))
    assert counts == [2, 1, 0]


@pytest.mark.parametrize(
    ("request_body", "status", "code", "told"),
    [
        (body("x", model="yolo"), 404, "MODEL_NOT_FOUND", "there is no model 'yolo'"),
        (body(" , ."), 400, "INVALID_REQUEST", "params.text_prompt: it is empty"),
        (body("x", content=b"no picture"), 400, "INVALID_IMAGE", "the picture"),
        ({"model": "s3seg", "image": "%"}, 400, "INVALID_REQUEST", ""),
        ({"image": "AAAA"}, 400, "INVALID_REQUEST", "model"),
    ],
)
async def test_errors_have_the_documented_body_and_a_status_that_says_so(request_body, status, code, told):
    async with serving("x-anylabeling") as client:
        answer = await client.post(f"{PREFIX}/v1/predict", json=request_body, headers=TOKEN)
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["error"]["code"] == code
    assert told in answer.json()["error"]["message"]


async def test_the_key_is_in_the_header_token():
    async with serving("x-anylabeling", network=ScriptedNetwork()) as client:
        wrong = await client.get(f"{PREFIX}/v1/models", headers={"Token": "x"})
        none = await client.post(f"{PREFIX}/v1/predict", json=body("left"))
    for answer in (wrong, none):
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
