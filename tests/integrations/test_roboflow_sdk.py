"""Roboflow's own client, `inference-sdk`, against the service: `make test-integrations`."""

from __future__ import annotations

import numpy as np
import pytest

from s3seg.inference.segmenter import Segmenter
from s3seg.results import masks
from tests.helpers.clickable import write_checkpoint_without_clicks, write_clickable_checkpoint
from tests.helpers.inference_system import PICTURES
from tests.integrations.running import KEY, service

sdk = pytest.importorskip("inference_sdk", reason="run `make test-integrations`")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PARK = str(PICTURES / "park.png")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with service(tmp_path_factory.mktemp("roboflow"), "roboflow") as url:
        yield url


@pytest.mark.parametrize("transport", ["legacy", "both", "header"])
def test_concept_segment_finds_what_the_segmenter_finds(url, transport):
    client = sdk.InferenceHTTPClient(api_url=url, api_key=KEY)
    client.configure(sdk.InferenceConfiguration(api_key_transport=transport))
    answer = client.sam3_concept_segment(
        PARK, prompts=[{"type": "text", "text": "tree"}], output_prob_thresh=0.45, format="rle"
    )
    expected = Segmenter("embedded").segment(PARK, "tree", threshold=0.45)
    (result,) = answer["prompt_results"]
    assert len(result["predictions"]) == len(expected) == 2
    for one, instance in zip(result["predictions"], expected, strict=True):  # the client sends the picture as a JPEG
        mask = masks.decode(masks.from_coco(one["masks"]))
        assert (mask & instance.mask).sum() / (mask | instance.mask).sum() > 0.97


def test_several_pictures_are_answered_one_by_one(url):
    client = sdk.InferenceHTTPClient(api_url=url, api_key=KEY)
    answers = client.sam3_concept_segment([PARK, PARK], prompts=[{"type": "text", "text": "cloud"}])
    assert [len(answer["prompt_results"][0]["predictions"]) for answer in answers] == [1, 1]


def test_visual_segment_returns_the_object_in_the_box(url):
    client = sdk.InferenceHTTPClient(api_url=url, api_key=KEY)
    box = {"x": 659.5, "y": 305, "width": 201, "height": 226}
    (found,) = client.sam3_visual_segment(PARK, prompts=[{"box": box}])["predictions"]
    points = np.concatenate([np.array(path) for path in found["masks"]])
    edges = np.abs(np.concatenate([points.min(axis=0), points.max(axis=0)]) - [559, 192, 760, 418])
    assert edges[:3].max() < 15
    assert edges[3] < 60  # the embedded checkpoint leaves out the trunk


def test_visual_segment_takes_clicks(tmp_path):
    folder = write_clickable_checkpoint(tmp_path / "clickable")
    points = [{"x": 659.5, "y": 305, "positive": True}, {"x": 300, "y": 90, "positive": False}]
    with service(tmp_path, "roboflow", checkpoint=str(folder)) as url:
        client = sdk.InferenceHTTPClient(api_url=url, api_key=KEY)
        answer = client.sam3_visual_segment(PARK, prompts=[{"points": points}], mask_input_format="rle")
    (found,) = answer["predictions"]
    expected = Segmenter(folder).click(PARK, [(659.5, 305), (300, 90)], [1, 0])[0].mask
    mask = masks.decode(masks.from_coco(found["masks"]))  # the client sends the picture as a JPEG
    assert (mask & expected).sum() / (mask | expected).sum() > 0.9


def test_clicks_on_a_checkpoint_without_a_click_head_are_an_error_of_the_client_with_our_message(tmp_path):
    folder = write_checkpoint_without_clicks(tmp_path / "headless")
    with service(tmp_path, "roboflow", checkpoint=str(folder)) as url:
        client = sdk.InferenceHTTPClient(api_url=url, api_key=KEY)
        with pytest.raises(sdk.http.errors.HTTPCallErrorError) as caught:
            client.sam3_visual_segment(PARK, prompts=[{"points": [{"x": 5, "y": 5, "positive": True}]}])
    assert "has no head for clicks" in caught.value.api_message


def test_a_wrong_key_is_an_error_of_the_client_with_our_message(url):
    client = sdk.InferenceHTTPClient(api_url=url, api_key="a wrong key")
    with pytest.raises(sdk.http.errors.HTTPCallErrorError) as caught:
        client.sam3_concept_segment(PARK, prompts=[{"type": "text", "text": "tree"}])
    assert "is not valid" in caught.value.api_message
