"""Compiled, padded and chunked passes find what the uncompiled network finds."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch

from s3seg.sam3 import kernels
from s3seg.sam3.compiled import CompiledPasses, compiled_methods
from s3seg.sam3.decoder import Decoder
from s3seg.sam3.passes import Passes
from s3seg.sam3.predictor import BoxPrompt, Predictor, Query
from tests.sam3.random_models import random_oracle, tiny_config
from tests.sam3.small_tokenizer import merges, vocabulary, write_packed

LIKE = BoxPrompt((0.4, 0.5, 0.3, 0.6), positive=True)
QUERIES = [Query("cat"), Query("a red traffic light"), Query("dog"), Query("the dog then the cat"), Query("light")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.inference_mode():
        oracle = random_oracle(tiny_config(vocab_size=len(vocabulary(merges())), queries=40), folder, seed=6)
        oracle.dot_product_scoring.query_proj.weight.data *= 30
        oracle.save_pretrained(folder)
    write_packed(folder, merges())
    return Predictor.from_path(folder, device="cpu", dtype="float32")


@pytest.fixture
def predictor(shared) -> Predictor:
    """Uncompiled; compiling changes only this copy."""
    return Predictor(copy.deepcopy(shared.model), shared.tokenizer)


@pytest.fixture
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (112, 112, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class TestPasses:
    @pytest.fixture
    def passes(self, predictor) -> CompiledPasses:
        return CompiledPasses(predictor.model, predictor._passes.constants, backend="eager")

    @pytest.mark.slow
    @pytest.mark.parametrize("boxes", [False, True], ids=["words", "boxes"])
    def test_each_pass_is_one_graph(self, passes, predictor, boxes):
        """``fullgraph`` makes every break an error, within the layers in the tests of predictions too."""
        plain = Passes(predictor.model, passes.constants)
        encode, detect, masks = (
            torch.compile(function, backend="eager", fullgraph=True, dynamic=False)
            for function in (plain.encode, plain.detect, plain.masks)
        )
        image = encode(torch.zeros(1, 3, predictor.image_size, predictor.image_size, dtype=torch.uint8))
        text, valid = torch.randn(2, 7, predictor.model.config.channels), torch.ones(2, 7, dtype=torch.bool)
        given = predictor._boxes([QUERIES[0], Query("cat", (LIKE,))]) if boxes else None
        found = detect(image, text, valid, given)
        torch.testing.assert_close(found.packed, plain.detect(image, text, valid, given).packed)
        torch.testing.assert_close(masks(image, found, 8), plain.masks(image, found, 8))

    def test_sizes_are_rounded_up_to_a_few(self, passes):
        assert [passes.rows(count) for count in range(1, 9)] == [1, 2, 4, 4, 8, 8, 8, 8]
        assert {passes.tokens(count) for count in range(1, 33)} == {7, 15, 39}
        assert [passes.instances(count) for count in (1, 8, 9, 32, 33, 40)] == [8, 8, 32, 32, 40, 40]

    def test_every_method_named_exists_and_is_compiled(self, passes, predictor):
        for owner, name in compiled_methods(predictor.model):
            assert hasattr(getattr(owner, name), "_torchdynamo_orig_callable")

    def test_without_a_compiler_the_layers_stay_as_they_are(self, predictor, images):
        expected = _predict(predictor, images, QUERIES, 0.5)
        predictor._passes = CompiledPasses(predictor.model, predictor._passes.constants, backend=None)
        for owner, name in compiled_methods(predictor.model):
            assert name not in vars(owner)
        for one, other in zip(_predict(predictor, images, QUERIES, 0.5), expected, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=2e-5)
            torch.testing.assert_close(one.mask_logits, other.mask_logits, atol=1e-4, rtol=1e-4)

    def test_the_layers_of_a_stack_share_a_compiled_function(self, passes, predictor):
        torch._dynamo.utils.counters.clear()
        passes.encode(torch.zeros(1, 3, predictor.image_size, predictor.image_size, dtype=torch.uint8))
        windows = {bool(layer.window) for layer in predictor.model.vision.trunk.layers}
        neck_and_encoder = 2
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(windows) + neck_and_encoder

    def test_the_forms_for_cuda_are_traced_without_a_break(self, predictor, monkeypatch):
        """On the device "meta", which has shapes and no values."""
        monkeypatch.setattr(kernels, "FAST", "meta")
        model = predictor.model.to("meta")
        for name, parameter in model.named_parameters():
            if not name.startswith(("scoring.", *(f"decoder.{exact}" for exact in Decoder.FP32))):
                parameter.data = parameter.data.bfloat16()
        for layer in model.vision.trunk.layers:
            layer.attention.cudnn = True
        for layer in model.decoder.layers:
            layer.image_attention.cudnn = True
        side = predictor.image_size
        passes = CompiledPasses(model, model.constants((8, 8)), backend="eager")
        image = passes.encode(torch.zeros(1, 3, side, side, dtype=torch.uint8, device="meta"))
        text = torch.zeros(2, 7, model.config.channels, dtype=torch.bfloat16, device="meta")
        found = passes.detect(image, text, torch.ones(2, 7, dtype=torch.bool, device="meta"), None)
        assert passes.masks(image, found, 8).shape[:2] == (2, 8)


class TestPredictor:
    def test_compiled_predictions_are_those_of_the_network(self, predictor, images):
        queries = [*QUERIES, Query("cat", (LIKE,)), Query("dog", (LIKE, LIKE, LIKE))]
        expected = _predict(predictor, images, queries, 0.5)
        assert len({len(one.scores) for one in expected}) > 1, "they should differ"
        predictor.compile(backend="eager")
        for one, other in zip(_predict(predictor, images, queries, 0.5), expected, strict=True):
            assert one.mask_logits.shape == other.mask_logits.shape
            np.testing.assert_allclose(one.scores, other.scores, atol=2e-5)
            np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=2e-5)
            torch.testing.assert_close(one.mask_logits, other.mask_logits, atol=1e-4, rtol=1e-4)

    @pytest.mark.slow
    def test_no_shape_is_new_after_all_have_been_seen(self, predictor, images):
        predictor.compile(backend="eager")
        for count in (1, 2, 3, 5):
            _predict(predictor, images[:1], QUERIES[:count], 0.5)
        torch._dynamo.utils.counters.clear()
        for count in (1, 2, 3, 4, 5):
            _predict(predictor, images[:1], QUERIES[-count:], 0.5)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of PyTorch's own code
    def test_generated_code_finds_what_the_network_finds(self, predictor, images, tmp_path):
        expected = _predict(predictor, images, QUERIES, -1)
        predictor.compile()
        for one, other in zip(_predict(predictor, images, QUERIES, -1), expected, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
            torch.testing.assert_close(one.mask_logits, other.mask_logits, atol=1e-3, rtol=1e-3)
        assert any(tmp_path.rglob("*.so")) or any(tmp_path.rglob("*.cpp")), "compiled code is kept"


class TestCache:
    def test_compiled_code_is_kept_in_the_cache_of_the_user(self, predictor, monkeypatch, tmp_path):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        CompiledPasses(predictor.model, predictor._passes.constants, backend="eager")
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "s3seg" / "compiled")

    def test_a_folder_that_was_named_is_used(self, predictor):
        named = os.environ["TORCHINDUCTOR_CACHE_DIR"]
        CompiledPasses(predictor.model, predictor._passes.constants, backend="eager")
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == named


def _predict(predictor: Predictor, images: list[np.ndarray], queries: list[Query], threshold: float):
    encoded = predictor.encode_images(images)
    pairs = [(encoded[0], query) for query in queries] + list(zip(encoded, queries, strict=False))
    return predictor.predict_pairs(pairs, threshold=threshold)
