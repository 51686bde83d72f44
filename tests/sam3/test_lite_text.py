"""The light text encoder against transformers' Sam3LiteTextModel, and the published sizes.

transformers is called in such a way that it computes what the reference implementation does: texts are padded with 0 to
the context length, and the padding is masked in the detector only.
"""

from __future__ import annotations

import importlib
import shutil

import pytest
import torch
from torch.nn import functional as F

from s3seg.errors import CheckpointError, PromptError
from s3seg.sam3.config import LiteTextConfig, Sam3Config
from s3seg.sam3.lite_text import LiteTextEncoder, RepMixerBlock
from s3seg.sam3.load import empty_model, load
from s3seg.sam3.model import BoxPrompts
from s3seg.sam3.predictor import Predictor
from s3seg.sam3.text import TextLayer
from tests.sam3.forward import assert_same, detect, oracle_outputs, with_cls_on_text_prompts
from tests.sam3.random_models import random_oracle, tiny_lite_text_config
from tests.sam3.small_tokenizer import merges, vocabulary, write_vocabulary_and_merges

SHAPES = {
    "RepMixer blocks": {},
    "plain layers only": {"use_repmixer_blocks": False},
    "a context of 77": {"max_position_embeddings": 77},
    "a kernel longer than the text": {"repmixer_kernel_size": 21, "max_position_embeddings": 7},
    "RepMixer blocks only": {"num_hidden_layers": 2, "repmixer_kernel_size": 3},
    "one layer": {"num_hidden_layers": 1},
}
# Published sizes, text encoder only. The sizes of the layers are those that the conversion script in the transformers
# repository (convert_sam3_lite_text_to_hf.py) derives from each original checkpoint, all of which have a context of 16;
# S0 is MobileCLIP's "mct" text encoder, with 4 transformer layers between 2 RepMixer blocks. The parameter counts are
# those of the model zoo of the reference implementation (docs/models.md of SimonZeng7108/efficientsam3).
PUBLISHED = {
    "S0": (LiteTextConfig(context=16, width=512, depth=6, heads=8, mlp_width=2048), 42.5e6),
    "S1": (LiteTextConfig(context=16, width=512, depth=12, heads=8, mlp_width=2048, repmixer=False), 63.5e6),
    "L": (LiteTextConfig(context=16, width=768, depth=12, heads=12, mlp_width=3072, repmixer=False), 123.8e6),
}
S0_TEXT = {"num_hidden_layers": 6, "max_position_embeddings": 16}  # the rest has transformers' defaults


@pytest.fixture(scope="module", params=list(SHAPES), ids=lambda name: name.replace(" ", "-"))
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle")
    with torch.inference_mode():
        oracle = random_oracle(tiny_lite_text_config(**SHAPES[request.param]), folder, seed=len(request.param))
        return oracle, load(folder)


@pytest.fixture
def inputs(pair):
    size = pair[1].config.vision.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return pixels, torch.tensor([[118, 17, 44, 3, 119], [118, 99, 119, 0, 0]])


def test_text_features_agree(pair, inputs):
    oracle, ours = pair
    _, ids = inputs
    found, expected = ours.encode_text(ids), _oracle_text(oracle, ours, ids).pooler_output
    torch.testing.assert_close(found, expected[:, : ids.shape[1]], atol=1e-4, rtol=1e-4)
    assert found.std() > 1e-2


def test_a_text_as_long_as_the_context_agrees(pair):
    oracle, ours = pair
    ids = torch.randint(1, 120, (1, ours.config.text.context), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        ours.encode_text(ids), _oracle_text(oracle, ours, ids).pooler_output, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("cls", [False, True], ids=["without CLS", "with CLS"])
def test_outputs_for_text_prompts_agree(pair, inputs, cls):
    oracle, ours = pair
    boxes = (torch.full((2, 1, 4), 0.5), torch.full((2, 1), -10)) if cls else (None, None)
    found = _detect(with_cls_on_text_prompts(ours, cls), *inputs, None)
    assert_same(found, _oracle_detect(oracle, ours, *inputs, *boxes))


def test_outputs_for_text_and_box_prompts_agree(pair, inputs):
    oracle, ours = pair
    boxes = torch.tensor([[[0.4, 0.5, 0.3, 0.6], [0.7, 0.3, 0.2, 0.1]], [[0.5, 0.5, 1.0, 0.9], [0.0, 0.0, 0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [1, -10]])
    found = _detect(ours, *inputs, BoxPrompts(boxes, labels == 1, labels != -10))
    assert_same(found, _oracle_detect(oracle, ours, *inputs, boxes, labels))


def test_fused_repmixer_blocks_agree_to_one_in_100_000(pair):
    oracle, ours = pair
    x = torch.randn(3, ours.config.text.context, 40, generator=torch.Generator().manual_seed(3))
    pairs = zip(ours.text.layers, oracle.text_encoder.layers, strict=True)
    fused = [(layer, theirs) for layer, theirs in pairs if isinstance(layer, RepMixerBlock)]
    assert len(fused) == len(ours.config.text.repmixer_layers)
    for layer, theirs in fused:
        torch.testing.assert_close(layer(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_padding_and_other_texts_do_not_change_a_text(pair, inputs):
    _, ours = pair
    _, ids = inputs
    together, alone = ours.encode_text(ids)[1, :3], ours.encode_text(ids[1:, :3])[0]
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_a_text_longer_than_the_context_is_an_error(pair):
    _, ours = pair
    context = ours.config.text.context
    with pytest.raises(ValueError, match=f"{context + 1} tokens is longer than the context of {context}"):
        ours.encode_text(torch.ones(1, context + 1, dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_blocks_are_fused_before_the_precision_is_lowered(pair, tmp_path, dtype):
    oracle, ours = pair
    oracle.save_pretrained(tmp_path)
    lower = load(tmp_path, dtype=dtype).text.state_dict()
    for name, tensor in ours.text.state_dict().items():
        torch.testing.assert_close(lower[name], tensor.to(dtype), atol=0, rtol=0)


def test_a_predictor_encodes_a_text_alike_alone_and_beside_longer_ones(tmp_path):
    pairs = merges()
    random_oracle(tiny_lite_text_config(vocab_size=len(vocabulary(pairs))), tmp_path)
    write_vocabulary_and_merges(tmp_path, pairs)
    predictor = Predictor.from_path(tmp_path, device="cpu")
    assert predictor.tokenizer.context == 16

    together = predictor.encode_texts(["cat", "the red traffic light"])[0]

    ids = torch.tensor([predictor.tokenizer("cat")])
    torch.testing.assert_close(together, predictor.model.encode_text(ids)[0], atol=1e-6, rtol=1e-5)
    with pytest.raises(PromptError, match="accepts at most 14"):
        predictor.encode_texts(["cat " * 15])


class TestConfiguration:
    def test_missing_values_have_the_defaults_of_transformers(self):
        configuration = importlib.import_module("transformers.models.sam3_lite_text.configuration_sam3_lite_text")
        full = configuration.Sam3LiteTextTextConfig().to_dict()
        assert Sam3Config.from_dict({"model_type": "sam3_lite_text"}).text == LiteTextConfig()
        assert Sam3Config.from_dict({"model_type": "sam3_lite_text", "text_config": full}).text == LiteTextConfig()

    def test_an_even_kernel_is_an_error(self):
        with pytest.raises(CheckpointError, match="repmixer_kernel_size must be odd, not 4"):
            Sam3Config.from_dict(tiny_lite_text_config(repmixer_kernel_size=4))

    def test_only_the_text_encoder_differs(self):
        plain = tiny_lite_text_config() | {"model_type": "sam3", "text_config": {}}
        lite, full = Sam3Config.from_dict(tiny_lite_text_config()), Sam3Config.from_dict(plain)
        assert (lite.vision, lite.encoder, lite.decoder, lite.geometry) == (
            full.vision,
            full.encoder,
            full.decoder,
            full.geometry,
        )


@pytest.mark.parametrize("size", list(PUBLISHED))
def test_the_published_sizes_have_the_published_number_of_parameters(size):
    text, published = PUBLISHED[size]
    model = empty_model(Sam3Config(text=text))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert isinstance(model.text, LiteTextEncoder)
    assert [isinstance(layer, TextLayer) for layer in model.text.layers].count(True) == (4 if size == "S0" else 12)
    pooled_projection = text.width**2  # which is published, but not used here
    assert _count(model.text) + pooled_projection == pytest.approx(published, rel=2e-3)
    assert _count(model) - _count(model.text) == 838_999_349 - _count(empty_model(Sam3Config()).text)


@pytest.mark.slow
def test_the_full_size_of_s0_agrees_with_transformers(tmp_path, capsys):
    """0.5 billion random weights at 1008 pixels. Needs 8 GB and some minutes."""
    oracle = random_oracle({"model_type": "sam3_lite_text", "text_config": S0_TEXT}, tmp_path)
    ours = load(tmp_path)
    shutil.rmtree(tmp_path)
    assert ours.config == Sam3Config(text=PUBLISHED["S0"][0])
    pixels = torch.randn(1, 3, 1008, 1008, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    ids = torch.tensor([[49_406, 2368, 320, 1929, 49_407]])

    image = oracle.get_vision_features(pixel_values=pixels)
    text = _oracle_text(oracle, ours, ids)
    expected = oracle(vision_embeds=image, text_embeds=text, attention_mask=_valid(ours, ids))
    found = _detect(with_cls_on_text_prompts(ours, False), pixels, ids, None)

    text_difference = (ours.encode_text(ids) - text.pooler_output[:, : ids.shape[1]]).abs().max().item()
    with capsys.disabled():
        print(f"\ntext features differ by {text_difference:.1e} at most")
        for name, value in oracle_outputs(expected).items():
            difference = (found[name] - value).abs().max().item()
            print(f"{name} differ by {difference:.1e} at most, of values up to {value.abs().max():.3g}")
    assert text_difference < 1e-4
    assert_same(found, oracle_outputs(expected))


def _padded(model, ids):
    return F.pad(ids, (0, model.config.text.context - ids.shape[1]))


def _valid(model, ids):
    return (_padded(model, ids) != 0).long()


def _oracle_text(oracle, model, ids):
    return oracle.get_text_features(input_ids=_padded(model, ids), attention_mask=None)


def _oracle_detect(oracle, model, pixels, ids, boxes, labels):
    output = oracle(
        pixel_values=pixels,
        text_embeds=_oracle_text(oracle, model, ids),
        attention_mask=_valid(model, ids),
        input_boxes=boxes,
        input_boxes_labels=labels,
    )
    return oracle_outputs(output)


def _detect(model, pixels, ids, boxes):
    return detect(model, model.encode_image(pixels), model.encode_text(ids), ids != 0, boxes)


def _count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
