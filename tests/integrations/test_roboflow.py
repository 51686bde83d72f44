"""Roboflow's routes: the documented requests here, and their own client in `test_roboflow_sdk`."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from s3seg.checkpoints import resolve
from s3seg.errors import InvalidRequestError
from s3seg.inference.segmenter import Segmenter
from s3seg.inference.stages import Sam3Network
from s3seg.integrations.roboflow_models import ConceptResponse, VisualResponse
from s3seg.results import masks
from tests.helpers.clickable import write_checkpoint_without_clicks, write_clickable_checkpoint
from tests.helpers.inference_system import PICTURES, ScriptedNetwork, png
from tests.integrations.running import KEY, same_mask, serving

pytestmark = pytest.mark.anyio
PARK = (PICTURES / "park.png").read_bytes()
BEARER = {"Authorization": f"Bearer {KEY}"}
CONCEPT, VISUAL = "/sam3/concept_segment", "/sam3/visual_segment"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("embedded")


def image(content=PARK):
    return {"type": "base64", "value": base64.b64encode(content).decode()}


def concept(*prompts, content=PARK, **fields):
    return {"image": image(content), "prompts": list(prompts), "output_prob_thresh": 0.45, **fields}


def filled(paths, size):
    mask = np.zeros(size, np.uint8)
    for path in paths:
        # pixel edges to pixel centres: drawn four times as large, then every fourth pixel
        large = np.zeros((size[0] * 4, size[1] * 4), np.uint8)
        cv2.fillPoly(large, [np.array(path, np.int32) * 4], 1)
        mask |= large[2::4, 2::4]
    return mask.astype(bool)


async def test_polygons_and_rle_are_the_masks_of_the_segmenter(segmenter):
    prompts = [{"type": "text", "text": "tree"}, {"type": "text", "text": "cloud"}]
    async with serving("roboflow") as client:
        polygons = await client.post(CONCEPT, json=concept(*prompts), headers=BEARER)
        rles = await client.post(CONCEPT, json=concept(*prompts, format="rle"), headers=BEARER)
    expected = segmenter.segment(PARK, ["tree", "cloud"], threshold=0.45)
    assert [len(result) for result in expected] == [2, 1]
    for answer, format_ in ((polygons, "polygon"), (rles, "rle")):
        told = ConceptResponse.model_validate(answer.json())
        assert [one.echo.text for one in told.prompt_results] == ["tree", "cloud"]
        for one, result in zip(told.prompt_results, expected, strict=True):
            assert {prediction.format for prediction in one.predictions} == {format_}
            scores = [prediction.confidence for prediction in one.predictions]
            assert scores == pytest.approx(result.scores.tolist(), abs=1e-4)
            for prediction, instance in zip(one.predictions, result, strict=True):
                if format_ == "rle":
                    assert same_mask(masks.decode(masks.from_coco(prediction.masks)), instance.mask)
                else:
                    assert same_mask(filled(prediction.masks, result.size), instance.mask)


async def test_example_boxes_are_understood_in_both_of_their_forms(segmenter):
    corner = {"x": 559, "y": 192, "width": 201, "height": 226}
    corners = {"x0": 559, "y0": 192, "x1": 760, "y1": 418}
    asked = [{"type": "visual", "boxes": [box], "box_labels": [1]} for box in (corner, corners)]
    async with serving("roboflow") as client:
        answer = await client.post(CONCEPT, json=concept(*asked, format="rle"), headers=BEARER)
    expected = segmenter.segment(PARK, boxes=[[559, 192, 760, 418]], threshold=0.45)
    assert len(expected) > 0
    for one in answer.json()["prompt_results"]:
        assert one["echo"] == {"prompt_index": one["prompt_index"], "type": "visual", "text": None, "num_boxes": 1}
        for found, instance in zip(one["predictions"], expected, strict=True):
            assert same_mask(masks.decode(masks.from_coco(found["masks"])), instance.mask)


async def test_a_prompt_may_have_a_threshold_of_its_own():
    prompts = [{"text": "left"}, {"text": "left", "output_prob_thresh": 0.2}]
    async with serving("roboflow", network=ScriptedNetwork()) as client:
        answer = await client.post(CONCEPT, json=concept(*prompts, content=png()), headers=BEARER)
    assert [len(one["predictions"]) for one in answer.json()["prompt_results"]] == [1, 2]


async def test_duplicates_across_prompts_can_be_dropped():
    prompts = [{"text": "a", "output_prob_thresh": 0.2}, {"text": "b", "output_prob_thresh": 0.2}]
    async with serving("roboflow", network=ScriptedNetwork()) as client:
        answer = await client.post(
            CONCEPT, json=concept(*prompts, content=png(), nms_iou_threshold=0.5), headers=BEARER
        )
    assert [len(one["predictions"]) for one in answer.json()["prompt_results"]] == [2, 0]


async def test_the_object_in_a_box_is_the_instance_that_overlaps_it_most(segmenter):
    box = {"x": 659.5, "y": 305, "width": 201, "height": 226}  # by its centre
    nowhere = {"x": 5, "y": 635, "width": 4, "height": 4}
    body = {"image": image(), "prompts": {"prompts": [{"box": box}, {"box": nowhere}]}, "format": "rle"}
    async with serving("roboflow") as client:
        answer = await client.post(VISUAL, json=body, headers=BEARER)
    first, second = VisualResponse.model_validate(answer.json()).predictions
    assert isinstance(first.masks, dict)
    found = masks.decode(masks.from_coco(first.masks))
    (right,) = segmenter.segment(PARK, "tree").filter(lambda tree: tree.box[0] > 400)
    overlap = (found & right.mask).sum() / (found | right.mask).sum()
    assert overlap > 0.9
    assert second.confidence <= first.confidence


@pytest.fixture(scope="module")
def clickable(tmp_path_factory):
    return write_clickable_checkpoint(tmp_path_factory.mktemp("clickable") / "c")


async def test_clicks_give_the_masks_of_the_segmenter(clickable):
    points = [{"x": 659.5, "y": 305, "positive": True}, {"x": 300, "y": 90, "positive": False}]
    box = {"x": 659.5, "y": 305, "width": 201, "height": 226}  # by its centre
    asked = [{"points": points}, {"points": points[:1], "box": box}, {"box": box}]
    body = {"image": image(), "prompts": {"prompts": asked}, "format": "rle"}
    async with serving("roboflow", network=Sam3Network(resolve(clickable))) as client:
        answer = await client.post(VISUAL, json=body, headers=BEARER)
    assert answer.status_code == 200, answer.text
    seg = Segmenter(clickable)
    corners = (559, 192, 760, 418)
    expected = [
        seg.click(PARK, [(659.5, 305), (300, 90)], [1, 0]),
        seg.click(PARK, [(659.5, 305)], [1], box=corners),
        seg.click(PARK, box=corners),
    ]
    found = VisualResponse.model_validate(answer.json()).predictions
    for one, result in zip(found, expected, strict=True):
        assert isinstance(one.masks, dict)
        assert one.confidence == pytest.approx(result[0].score, abs=1e-3)
        assert same_mask(masks.decode(masks.from_coco(one.masks)), result[0].mask)


async def test_a_checkpoint_without_a_click_head_says_so_in_the_words_of_the_library(tmp_path):
    headless = write_checkpoint_without_clicks(tmp_path / "headless")
    body = {"image": image(), "prompts": {"prompts": [{"points": [{"x": 5, "y": 5, "positive": True}]}]}}
    with pytest.raises(InvalidRequestError) as refused:
        Segmenter(headless).click(PARK, [(5, 5)])
    async with serving("roboflow", network=Sam3Network(resolve(headless))) as client:
        answer = await client.post(VISUAL, json=body, headers=BEARER)
    assert answer.status_code == 400
    assert answer.json()["message"] == str(refused.value)


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ([{}], "neither a box nor points"),
        ([{"points": []}], "neither a box nor points"),
        ([{"points": [{"x": 1, "y": 1}]}, {}], "neither a point nor a box"),
        ([{"points": [{"x": 1, "y": 1}] * 65}], "at most 64 points"),
        ([{"points": [{"x": 1}]}], "points.0.y"),
        ([{"points": [{"x": 100_000, "y": 1}]}], "the point 100000,1 is not inside the picture"),
        ([{"points": [{"x": 1, "y": 1}], "box": {"x": 5, "y": 5, "width": -2, "height": 3}}], "x1 < x2"),
    ],
)
async def test_clicks_that_cannot_be_used_are_told(prompts, told):
    body = {"image": image(png()), "prompts": {"prompts": prompts}}
    async with serving("roboflow", network=ScriptedNetwork()) as client:
        answer = await client.post(VISUAL, json=body, headers=BEARER)
    assert answer.status_code == 400
    assert told in answer.json()["message"]


@pytest.mark.parametrize("where", ["header", "query", "body", "ours"])
async def test_the_key_may_be_wherever_roboflows_clients_send_it(where):
    async with serving("roboflow", network=ScriptedNetwork()) as client:
        statuses = []
        for key in (KEY, "wrong"):
            options = {
                "header": {"headers": {"Authorization": f"Bearer {key}"}},
                "ours": {"headers": {"X-API-Key": key}},
                "query": {"params": {"api_key": key}},
                "body": {},
            }[where]
            more = {"api_key": key} if where == "body" else {}
            answer = await client.post(CONCEPT, json=concept({"text": "left"}, content=png(), **more), **options)
            statuses.append(answer.status_code)
    assert statuses == [200, 401]


async def test_without_any_key_the_answer_is_401_in_the_form_that_their_clients_show():
    async with serving("roboflow", network=ScriptedNetwork()) as client:
        answer = await client.post(CONCEPT, json=concept({"text": "left"}))
        visual = await client.post(VISUAL, json={"image": image(), "prompts": []})
    assert (answer.status_code, visual.status_code) == (401, 401)
    assert answer.json()["message"].startswith("no API key")
    assert answer.json()["error"]["code"] == "AUTH_REQUIRED"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (concept(), "give 1 to 16"),
        (concept(*[{"text": "x"}] * 17), "give 1 to 16"),
        (concept({"type": "visual"}), "there is no prompt"),
        (concept({"boxes": [{"x": 1}]}), "a box has x, y, width and height"),
        (concept({"text": "x"}, format="binary"), "format"),
        (
            {**concept({"text": "x"}), "image": {"type": "url", "value": "http://x/a.png"}},
            "does not download",
        ),
        ({**concept({"text": "x"}), "image": {"type": "base64", "value": "*"}}, "picture"),
    ],
)
async def test_what_cannot_be_used_is_told(body, told):
    async with serving("roboflow") as client:
        answer = await client.post(CONCEPT, json=body, headers=BEARER)
    assert answer.status_code == 400
    assert told in answer.json()["message"]


async def test_a_body_that_is_too_long_is_refused():
    async with serving("roboflow", network=ScriptedNetwork()) as client:
        answer = await client.post(CONCEPT, content=b" " * (15 * 2**20), headers=BEARER)
    assert answer.status_code == 413
