"""Compare with transformers' Sam3Model, on random weights and many shapes."""

from __future__ import annotations

import pytest
import torch

from s3seg.sam3.load import load
from s3seg.sam3.model import BoxPrompts
from tests.sam3.forward import assert_same, detect, oracle_outputs, with_cls_on_text_prompts
from tests.sam3.random_models import random_oracle, tiny_config

SHAPES = {
    "windows that do not divide the grid": {},
    "windows that divide the grid": {"window": 4},
    "one window": {"window": 8, "global_layers": [0, 1, 2]},
    "a window larger than the grid": {"window": 11},
    "only windows but one": {"depth": 4, "global_layers": [3], "window": 5},
    "an odd grid, positions tiled unevenly": {"image_size": 98, "pretrain_image_size": 42},
    "patches of 16, eight heads": {
        "image_size": 128,
        "patch_size": 16,
        "pretrain_image_size": 128,
        "heads": 8,
        "roi_size": 3,
        "queries": 17,
        "encoder": 1,
        "geometry": 1,
    },
}


@pytest.fixture(scope="module", params=list(SHAPES), ids=lambda name: name.replace(" ", "-"))
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle")
    with torch.inference_mode():
        oracle = random_oracle(tiny_config(**SHAPES[request.param]), folder, seed=len(request.param))
        return oracle, load(folder)


@pytest.fixture
def inputs(pair):
    size = pair[1].config.vision.image_size
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, size, size, generator=generator)
    ids = torch.tensor([[0, 17, 44, 3, 1], [0, 99, 1, 1, 1]])
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    return pixels, ids, valid


def test_image_and_text_features_agree(pair, inputs):
    oracle, ours = pair
    pixels, ids, valid = inputs
    for found, expected in zip(ours.vision(pixels), oracle.vision_encoder(pixels).fpn_hidden_states[:-1], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    expected = oracle.get_text_features(input_ids=ids, attention_mask=valid.long()).pooler_output
    torch.testing.assert_close(ours.encode_text(ids)[valid], expected[valid], atol=1e-4, rtol=1e-4)


def test_text_prompts_agree_without_the_cls_token(pair, inputs):
    oracle, ours = pair
    pixels, ids, valid = inputs
    compatible = with_cls_on_text_prompts(ours, False)
    expected = oracle(pixel_values=pixels, input_ids=ids, attention_mask=valid.long())
    assert_same(_detect(compatible, pixels, ids, valid, None), oracle_outputs(expected))


def test_text_prompts_agree_with_the_cls_token(pair, inputs):
    oracle, ours = pair
    pixels, ids, valid = inputs
    padded = torch.full((2, 1, 4), 0.5)  # one padded box makes transformers append the CLS token
    expected = oracle(
        pixel_values=pixels,
        input_ids=ids,
        attention_mask=valid.long(),
        input_boxes=padded,
        input_boxes_labels=torch.full((2, 1), -10),
    )
    assert_same(_detect(ours, pixels, ids, valid, None), oracle_outputs(expected))


def test_box_prompts_agree(pair, inputs):
    oracle, ours = pair
    pixels, ids, valid = inputs
    boxes = torch.tensor([[[0.4, 0.5, 0.3, 0.6], [0.7, 0.3, 0.2, 0.1]], [[0.5, 0.5, 1.0, 0.9], [0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [1, -10]])
    expected = oracle(
        pixel_values=pixels,
        input_ids=ids,
        attention_mask=valid.long(),
        input_boxes=boxes,
        input_boxes_labels=labels,
    )
    prompts = BoxPrompts(boxes, labels == 1, labels != -10)
    assert_same(_detect(ours, pixels, ids, valid, prompts), oracle_outputs(expected))


def test_one_image_serves_many_prompts_as_if_each_had_its_own(pair, inputs):
    _, ours = pair
    pixels, ids, valid = inputs
    image = ours.encode_image(pixels[:1])
    text = ours.encode_text(ids)
    shared = detect(ours, image.repeat(2), text, valid, None)
    for row in range(2):
        length = int(valid[row].sum())
        single = detect(ours, image, text[row : row + 1, :length], valid[row : row + 1, :length], None)
        for name, one in single.items():
            torch.testing.assert_close(shared[name][row : row + 1], one, atol=2e-5, rtol=1e-4)


def _detect(model, pixels, ids, valid, boxes):
    return detect(model, model.encode_image(pixels), model.encode_text(ids), valid, boxes)
