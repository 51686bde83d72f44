"""Arrays and words in, arrays out: nothing depends on what is asked together, in which order, or on which thread."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from s3seg.errors import CheckpointError, CheckpointNotFoundError, InferenceError, PromptError
from s3seg.sam3 import predictor as module
from s3seg.sam3.model import ImageFeatures
from s3seg.sam3.predictor import BoxPrompt, Detections, Predictor, Query
from s3seg.sam3.resize import preprocess
from tests.sam3.random_models import random_oracle, tiny_config
from tests.sam3.small_tokenizer import merges, vocabulary, write_packed

PAIRS = merges()
LIKE = BoxPrompt((0.4, 0.5, 0.3, 0.6), positive=True)
UNLIKE = BoxPrompt((0.7, 0.3, 0.2, 0.1), positive=False)
QUERIES = [
    Query("cat"),
    Query("a red traffic light"),
    Query("visual", (LIKE,)),
    Query("dog", (LIKE, UNLIKE)),
    Query("cat", (UNLIKE,)),
    Query("the dog then the cat"),
    Query("cat"),
]


@pytest.fixture(scope="module", params=[True, False], ids=["reference CLS", "transformers CLS"])
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    with torch.inference_mode():
        oracle = random_oracle(tiny_config(vocab_size=len(vocabulary(PAIRS))), folder, seed=6)
        oracle.dot_product_scoring.query_proj.weight.data *= 30  # scores that lie apart
        oracle.save_pretrained(folder)
    write_packed(folder, PAIRS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"s3seg": {"cls_on_text_prompts": request.param}}))
    return folder


@pytest.fixture(scope="module")
def shared(folder) -> Predictor:
    return Predictor.from_path(folder, device="cpu", dtype="float32")


@pytest.fixture
def predictor(shared) -> Predictor:
    """With an empty text cache."""
    return Predictor(shared.model, shared.tokenizer)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((40, 60), (112, 112), (300, 50))]


@pytest.fixture
def image(predictor, images):
    return predictor.encode_images(images[:1])[0]


@pytest.fixture
def threshold(predictor, image) -> float:
    """Leaves some instances of some queries, and is as far from any score as it can be."""
    scores = np.concatenate([found.scores for found in predictor.predict(image, QUERIES, threshold=-1)])
    middle = np.sort(scores)[len(scores) // 3 : -len(scores) // 4]
    gap = int(np.diff(middle).argmax())
    assert middle[gap + 1] - middle[gap] > 0.02
    return float(middle[gap] + middle[gap + 1]) / 2


class TestPredict:
    def test_many_queries_find_what_each_finds_alone(self, predictor, image, threshold):
        together = predictor.predict(image, QUERIES, threshold=threshold)
        assert len({len(found.scores) for found in together}) > 1, "they should differ"
        for query, found in zip(QUERIES, together, strict=True):
            alone = Predictor(predictor.model, predictor.tokenizer)
            _assert_same(found, *alone.predict(image, [query], threshold=threshold))

    @pytest.mark.parametrize("at_once", [1, 2, 3, 100])
    def test_how_many_queries_are_decoded_at_once_changes_nothing(
        self, predictor, image, threshold, monkeypatch, at_once
    ):
        together = predictor.predict(image, QUERIES, threshold=threshold)
        decoded = _count_chunks(predictor, monkeypatch)
        monkeypatch.setattr(module, "_TOKENS_AT_ONCE_CPU", at_once * 8 * 8)
        in_chunks = predictor.predict(image, QUERIES, threshold=threshold)
        assert sum(decoded) == len(QUERIES)
        assert max(decoded) == min(at_once, len(QUERIES))
        for one, other in zip(together, in_chunks, strict=True):
            _assert_same(one, other)

    def test_a_grid_larger_than_a_chunk_is_decoded_all_the_same(self, predictor, image, monkeypatch):
        monkeypatch.setattr(module, "_TOKENS_AT_ONCE_CPU", 1)
        assert len(predictor.predict(image, QUERIES[:2], threshold=0.0)) == 2

    def test_instances_come_best_first_and_above_the_threshold(self, predictor, image, threshold):
        for found in predictor.predict(image, QUERIES, threshold=threshold):
            assert (np.diff(found.scores) <= 0).all()
            assert (found.scores > threshold).all()
            assert ((found.boxes_xyxy >= 0) & (found.boxes_xyxy <= 1)).all()
            assert 0 <= found.presence <= 1

    def test_the_threshold_only_cuts_the_list(self, predictor, image, threshold):
        every = predictor.predict(image, QUERIES, threshold=-1)
        some = predictor.predict(image, QUERIES, threshold=threshold)
        for whole, found in zip(every, some, strict=True):
            count = int((whole.scores > threshold).sum())
            assert len(whole.scores) == predictor.model.config.queries
            _assert_same(_first(whole, count), found)

    @pytest.mark.parametrize("max_instances", [0, 1, 3, 1000])
    def test_max_instances_only_cuts_the_list(self, predictor, image, max_instances):
        for whole, found in zip(
            predictor.predict(image, QUERIES, threshold=-1),
            predictor.predict(image, QUERIES, threshold=-1, max_instances=max_instances),
            strict=True,
        ):
            _assert_same(_first(whole, max_instances), found)

    def test_a_query_without_instances_has_empty_arrays_of_the_right_shape(self, predictor, image):
        for found in predictor.predict(image, QUERIES[:3], threshold=1.0):
            assert (found.scores.shape, found.scores.dtype) == ((0,), np.float32)
            assert (found.boxes_xyxy.shape, found.boxes_xyxy.dtype) == ((0, 4), np.float32)
            assert (found.mask_logits.shape, found.mask_logits.dtype) == ((0, 32, 32), torch.float32)

    def test_the_mask_head_runs_only_for_queries_with_instances(self, predictor, image, monkeypatch):
        every = predictor.predict(image, QUERIES, threshold=-1)
        best = sorted({found.scores[0] for found in every})
        between = float(best[-1] + best[-2]) / 2
        rows = []
        masks = type(predictor.model).masks
        monkeypatch.setattr(
            type(predictor.model),
            "masks",
            lambda self, *args: rows.append(len(args[3])) or masks(self, *args),
        )
        predictor.predict(image, QUERIES, threshold=between)
        assert rows == [sum(found.scores[0] > between for found in every)]
        predictor.predict(image, QUERIES, threshold=1.0)
        assert len(rows) == 1

    def test_no_queries_find_nothing(self, predictor, image):
        assert predictor.predict(image, [], threshold=0.5) == []

    def test_images_encoded_together_are_as_if_each_were_alone(self, predictor, images, threshold):
        for image, alone in zip(predictor.encode_images(images), images, strict=True):
            (expected,) = predictor.encode_images([alone])
            for one, other in zip(_parts(image), _parts(expected), strict=True):
                torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)

    def test_boxes_change_what_is_found(self, predictor, image):
        plain, like, unlike = predictor.predict(
            image, [Query("cat"), Query("cat", (LIKE,)), Query("cat", (UNLIKE,))], threshold=-1
        )
        assert not np.allclose(plain.scores, like.scores, atol=1e-3)
        assert not np.allclose(like.scores, unlike.scores, atol=1e-3)

    def test_a_failure_says_in_which_part_of_the_network(self, predictor, image, monkeypatch):
        def fail(*_):
            raise RuntimeError("no kernel for this")

        monkeypatch.setattr(type(predictor.model), "encode_prompted", fail)
        with pytest.raises(InferenceError, match="prompt part: no kernel for this"):
            predictor.predict(image, QUERIES, threshold=0.5)

    def test_values_that_overflow_are_an_error_that_says_what_to_do(self, predictor, image, monkeypatch):
        detect = type(predictor.model).detect

        def overflown(*arguments):
            detections = detect(*arguments)
            return replace(detections, presence_logits=detections.presence_logits * float("nan"))

        monkeypatch.setattr(type(predictor.model), "detect", overflown)
        with pytest.raises(InferenceError, match=r"not finite in torch\.float32; load it with dtype 'float32'"):
            predictor.predict(image, QUERIES, threshold=0.5)

    def test_running_out_of_memory_is_told_apart(self, predictor, images, monkeypatch):
        def fail(*_):
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")

        monkeypatch.setattr(type(predictor.model), "encode_image", fail)
        with pytest.raises(InferenceError, match="out of memory in the image part"):
            predictor.encode_images(images)


class TestTexts:
    def test_a_text_from_the_cache_is_the_text_encoded(self, predictor):
        first = predictor.encode_texts(["cat", "a red traffic light"])
        again = predictor.encode_texts(["a red traffic light", "cat"])
        assert all(torch.equal(a, b) for a, b in zip(first, again[::-1], strict=True))
        assert [len(text) for text in first] == [3, 6]

    def test_a_known_text_is_not_encoded_again(self, predictor, monkeypatch):
        encoded = _count_texts(predictor, monkeypatch)
        predictor.encode_texts(["cat", "dog", "cat"])
        predictor.encode_texts(["dog", "the dog"])
        assert encoded == [2, 1]

    def test_texts_are_alike_whatever_longer_text_is_beside_them(self, predictor):
        alone = Predictor(predictor.model, predictor.tokenizer).encode_texts(["cat"])[0]
        beside = predictor.encode_texts(["cat", "the dog then the cat then the dog"])[0]
        torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)

    def test_the_cache_keeps_the_most_recent_texts_and_no_more(self, shared, monkeypatch):
        predictor = Predictor(shared.model, shared.tokenizer, max_cached_texts=3)
        predictor.encode_texts(["cat", "dog", "light"])
        predictor.encode_texts(["cat"])  # now the most recent
        predictor.encode_texts(["red"])
        encoded = _count_texts(predictor, monkeypatch)
        predictor.encode_texts(["cat"])
        predictor.encode_texts(["light"])
        assert encoded == []
        predictor.encode_texts(["dog"])
        assert encoded == [1]

    def test_more_texts_at_once_than_the_cache_keeps(self, shared):
        predictor = Predictor(shared.model, shared.tokenizer, max_cached_texts=2)
        texts = ["cat", "dog", "light", "red", "the"]
        few = predictor.encode_texts(texts)
        assert len(predictor._texts) == 2
        for text, found in zip(texts, few, strict=True):
            alone = Predictor(predictor.model, predictor.tokenizer).encode_texts([text])[0]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)

    def test_one_bad_prompt_is_told_before_anything_is_computed(self, predictor, monkeypatch):
        encoded = _count_texts(predictor, monkeypatch)
        with pytest.raises(PromptError):
            predictor.encode_texts(["cat", " "])
        assert encoded == []


class TestThreads:
    def test_threads_that_share_a_predictor_find_what_one_finds(self, predictor, images, threshold):
        def work(turn: int) -> tuple[int, list[Detections]]:
            which = turn % len(images)
            (image,) = predictor.encode_images([images[which]])
            return which, predictor.predict(image, QUERIES[turn % 3 :: 2], threshold=threshold)

        alone = Predictor(predictor.model, predictor.tokenizer)
        with ThreadPoolExecutor(2) as pool:
            for turn, (which, results) in enumerate(pool.map(work, range(12))):
                (image,) = alone.encode_images([images[which]])
                expected = alone.predict(image, QUERIES[turn % 3 :: 2], threshold=threshold)
                for one, other in zip(results, expected, strict=True):
                    _assert_same(one, other)


class TestPrecision:
    @pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.03), ("float16", 0.005)])
    def test_half_precision_scores_what_fp32_scores(self, folder, predictor, images, dtype, tolerance):
        half = Predictor.from_path(folder, device="cpu", dtype=dtype)
        queries = QUERIES[:4]
        found = half.predict(half.encode_images(images[:1])[0], queries, threshold=-1)
        expected = predictor.predict(predictor.encode_images(images[:1])[0], queries, threshold=-1)
        assert half.dtype == {"bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
        for one, other in zip(found, expected, strict=True):
            assert one.mask_logits.dtype == torch.float32
            assert one.scores.dtype == one.boxes_xyxy.dtype == np.float32
            np.testing.assert_allclose(one.scores, other.scores, atol=tolerance)
            assert abs(one.presence - other.presence) < tolerance / 10
        assert max(found.scores.max() for found in expected) > 10 * tolerance, "they should say something"


class TestPreprocess:
    @pytest.mark.parametrize("size", [(40, 60), (112, 112), (300, 50), (1, 1), (1, 500), (7, 1000), (999, 111)])
    def test_resizing_is_that_of_pillow_within_a_grey_level(self, size):
        image = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
        expected = Image.fromarray(image).resize((112, 112), Image.Resampling.BILINEAR)
        found = preprocess(image, 112)
        assert (found.shape, found.dtype) == ((1, 3, 112, 112), torch.float32)
        grey = (found[0].permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.abs(grey - np.asarray(expected, dtype=np.float32)).max() <= 1.001

    def test_black_is_minus_one_and_white_is_one(self):
        image = np.zeros((20, 30, 3), np.uint8)
        image[:, :, 1] = 255
        assert torch.equal(preprocess(image, 14).amin((0, 2, 3)), torch.tensor([-1.0, 1.0, -1.0]))
        assert torch.equal(preprocess(image, 14).amax((0, 2, 3)), torch.tensor([-1.0, 1.0, -1.0]))

    def test_the_arrays_that_pillow_makes_and_views_of_others_are_taken(self):
        image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        expected = preprocess(image, 28)
        read_only = np.asarray(Image.fromarray(image))
        assert not read_only.flags.writeable
        assert torch.equal(preprocess(read_only, 28), expected)
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        assert torch.equal(preprocess(bgr[:, :, ::-1], 28), expected)


class TestFromPath:
    def test_a_weight_file_finds_the_tokenizer_beside_it(self, folder, predictor, image):
        found = Predictor.from_path(folder / "model.safetensors", device="cpu", dtype="float32")
        assert found.tokenizer("a cat") == predictor.tokenizer("a cat")
        assert found.parameters == sum(tensor.numel() for tensor in found.model.state_dict().values())
        assert found.device == torch.device("cpu")

    def test_a_checkpoint_without_a_tokenizer_says_so(self, folder, tmp_path):
        bare = shutil.copytree(folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.gz"))
        with pytest.raises(CheckpointNotFoundError, match="no tokenizer"):
            Predictor.from_path(bare, device="cpu", dtype="float32")

    def test_a_tokenizer_with_more_tokens_than_the_weights_know_is_refused(self, folder, tmp_path):
        other = shutil.copytree(folder, tmp_path / "other")
        write_packed(other, [*PAIRS, ("d", "a")])
        with pytest.raises(CheckpointError, match="is of another model"):
            Predictor.from_path(other, device="cpu", dtype="float32")


def _parts(image: ImageFeatures) -> tuple[torch.Tensor, ...]:
    return (image.coarse, image.tokens, *image.laterals)


def _assert_same(found: Detections, expected: Detections) -> None:
    assert len(found.scores) == len(expected.scores) == len(found.boxes_xyxy) == len(found.mask_logits)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-5)
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=2e-5)
    np.testing.assert_allclose(found.presence, expected.presence, atol=2e-5)
    torch.testing.assert_close(found.mask_logits, expected.mask_logits, atol=1e-4, rtol=1e-4)


def _first(found: Detections, count: int) -> Detections:
    return Detections(
        found.scores[:count], found.boxes_xyxy[:count], found.mask_logits[:count], presence=found.presence
    )


def _count_chunks(predictor: Predictor, monkeypatch) -> list[int]:
    """The sizes of the chunks that are decoded from now on."""
    sizes: list[int] = []
    encode = type(predictor.model).encode_prompted
    monkeypatch.setattr(
        type(predictor.model),
        "encode_prompted",
        lambda self, image, prompt: sizes.append(len(prompt.tokens)) or encode(self, image, prompt),
    )
    return sizes


def _count_texts(predictor: Predictor, monkeypatch) -> list[int]:
    """How many texts are encoded at a time from now on."""
    sizes: list[int] = []
    encode = type(predictor.model).encode_text
    monkeypatch.setattr(
        type(predictor.model), "encode_text", lambda self, ids: sizes.append(len(ids)) or encode(self, ids)
    )
    return sizes
