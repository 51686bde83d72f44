"""The worked example: a run that is cut and taken up is the same run, and what it writes opens as a checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import s3seg
from s3seg.sam3.predictor import BoxPrompt, Predictor, Query
from train_small_sam3 import batches, prompts, scenes
from train_small_sam3.concepts import load_vocabulary
from train_small_sam3.export import export, known_phrases
from train_small_sam3.icons import IconAtlas, load_atlas
from train_small_sam3.metrics import compare, summarise
from train_small_sam3.muon import orthogonal
from train_small_sam3.repeat import repeat
from train_small_sam3.settings import TINY
from train_small_sam3.splits import SPLITS
from train_small_sam3.state import resume, start
from train_small_sam3.train import train
from train_small_sam3.unknown_words import TEST_WORDS, TRAINING_WORDS


@pytest.fixture(scope="session")
def vocabulary():
    return load_vocabulary()


@pytest.fixture(scope="session")
def cache(tmp_path_factory, vocabulary) -> Path:
    """Icons as `load_atlas` keeps them, without fetching any: a disc of its own colour for each, in three styles."""
    folder = tmp_path_factory.mktemp("icons")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    disc = ((x - 15.5) ** 2 + (y - 15.5) ** 2 < 15**2).astype(np.uint8)[..., None]
    index, pixels = [], []
    for icon in sorted({icon for concept in vocabulary.concepts for icon in concept.icons}):
        drawing = np.concatenate([disc * rng.integers(0, 256, 3, dtype=np.uint8), disc * 255], axis=2)
        for style in ("noto", "twemoji", "openmoji"):
            index.append((icon, style))
            pixels.append(drawing)
    for size in (128, 64, 32):
        np.save(folder / f"icons_{size}.npy", np.stack(pixels))
    (folder / "icons.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(autouse=True)
def no_fetching(monkeypatch, cache):
    monkeypatch.setenv("S3SEG_TRAIN_CACHE", str(cache))


@pytest.fixture
def atlas(vocabulary, cache) -> IconAtlas:
    return load_atlas(vocabulary, cache)


@pytest.fixture
def run(tmp_path, vocabulary, atlas):
    start(tmp_path / "run", TINY, vocabulary, atlas, None)
    return tmp_path / "run"


def _tensors(run):
    content = torch.load(run / "state.pt", weights_only=True)
    flat = {f"model.{k}": v for k, v in content["model"].items()}
    flat |= {f"average.{k}": v for k, v in content["average"].items()}
    for i, optimiser in enumerate(content["optimisers"]):
        for weight, state in optimiser["state"].items():
            flat |= {f"optimiser.{i}.{weight}.{k}": v for k, v in state.items()}
    return content["step"], flat


def test_six_steps_are_three_and_three_after_a_pause(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    assert train(run, minutes=10) == 6
    assert train(other, minutes=10, last_step=3) == 3
    assert train(other, minutes=10) == 6
    (steps, whole), (_, pieces) = _tensors(run), _tensors(other)
    assert steps == 6
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_a_run_that_is_out_of_time_stops_and_can_go_on(run):
    assert train(run, minutes=0) == 1
    assert train(run, minutes=10) == 6
    logged = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert logged == [1, 6]


def test_training_changes_every_weight_that_the_checkpoint_holds(run):
    before = torch.load(run / "state.pt", weights_only=True)["model"]
    train(run, minutes=10)
    after = torch.load(run / "state.pt", weights_only=True)["model"]
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    # the tiny run may not show any boxes, and then nothing reaches the geometry encoder
    assert not {name for name in unchanged if not name.startswith("geometry.")}


def test_what_a_run_exports_opens_as_a_checkpoint(run, tmp_path, vocabulary):
    train(run, minutes=10, last_step=2)
    export(run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25)
    seg = s3seg.Segmenter(tmp_path / "checkpoint", device="cpu")
    result = seg.segment(np.zeros((50, 80, 3), np.uint8), "cat")
    assert result.masks.shape[1:] == (50, 80)
    state, _, _ = resume(run, vocabulary)
    ours = seg.predictor.model.state_dict()
    assert ours.keys() == state.average.keys()
    assert all(torch.equal(ours[k], v.half().float()) for k, v in state.average.items())


def test_a_text_beside_a_prompt_with_boxes_is_answered_as_if_alone(run, tmp_path):
    export(run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25)
    predictor = Predictor.from_path(tmp_path / "checkpoint", device="cpu", dtype="float32")
    predictor.model.geometry.cls.add_(1)
    (image,) = predictor.encode_images([np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)])
    said, shown = Query("cat"), Query("visual", (BoxPrompt((0.5, 0.5, 0.4, 0.4), positive=True),))
    (alone,) = predictor.predict(image, [said], threshold=0)
    beside, _ = predictor.predict(image, [said, shown], threshold=0)
    np.testing.assert_allclose(beside.scores, alone.scores, atol=1e-6)


def test_the_whole_run_goes_from_nothing_to_a_checkpoint_and_its_figures(tmp_path, capsys):
    figures = repeat(tmp_path, size="tiny", scenes=2)
    seg = s3seg.Segmenter(tmp_path / "checkpoint", device="cpu")
    assert seg.segment(np.zeros((40, 40, 3), np.uint8), "cat").masks.shape[1:] == (40, 40)
    assert set(figures["splits"]) == {*SPLITS} - {"validation"}
    assert all(name in capsys.readouterr().out for name in ["twemoji"])
    assert (tmp_path / "grid.png").stat().st_size > 0
    assert (tmp_path / "curve.png").stat().st_size > 0
    assert train(tmp_path / "run", minutes=1) == TINY.steps  # there is nothing left to do


def test_the_same_seed_draws_the_same_scene(vocabulary, atlas):
    recipe = scenes.Recipe(size=96, styles=("noto",))
    a, b = (scenes.draw_scene(5, recipe, vocabulary, atlas) for _ in range(2))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.ids, b.ids)
    assert a.things == b.things
    assert not np.array_equal(a.image, scenes.draw_scene(6, recipe, vocabulary, atlas).image)


@pytest.mark.parametrize("seed", range(12))
def test_prompts_with_answers_find_something_and_the_others_nothing(vocabulary, atlas, seed):
    scene = scenes.draw_scene(seed, scenes.Recipe(size=96, styles=("noto",)), vocabulary, atlas)
    found, absent = prompts.PromptMaker(vocabulary).for_scene(scene, 3, 3, np.random.default_rng(seed))
    assert all(any(p.finds(t) for t in scene.things) for p in found)
    assert not any(p.finds(t) for p in absent for t in scene.things)
    assert len({p.words for p in found + absent}) == len(found) + len(absent)


def test_held_out_combinations_are_neither_drawn_nor_asked_for_in_training(vocabulary, atlas):
    maker = prompts.PromptMaker(vocabulary)
    for seed in range(60):
        scene = scenes.draw_scene(seed, scenes.Recipe(size=96, shapes=1.0), vocabulary, atlas)
        assert not {(t.colour, t.shape) for t in scene.things} & scenes.HELD_OUT_COMBINATIONS
        asked = maker.for_scene(scene, 3, 3, np.random.default_rng(seed))
        assert not {(p.colour, p.shape) for part in asked for p in part} & scenes.HELD_OUT_COMBINATIONS


def test_a_row_shown_by_boxes_asks_for_the_things_that_look_alike(vocabulary, atlas):
    maker = batches.BatchMaker(replace(TINY, batch=8, prompts=4, boxes=1.0), vocabulary, atlas, _Words())
    seen = set()
    for step in range(12):
        batch = maker[step]
        shown = batch.shown_valid.any(1)
        assert torch.equal(shown & ~batch.row_targets.any(1), torch.zeros_like(shown)) or (~batch.shown_labels).any()
        for row in shown.nonzero()[:, 0].tolist():
            boxes = batch.boxes[batch.row_image[row]]
            for k in batch.shown_valid[row].nonzero()[:, 0].tolist():
                near = (boxes - batch.shown_boxes[row, k]).abs().sum(1).argmin()
                positive = bool(batch.shown_labels[row, k])
                assert bool(batch.row_targets[row, near]) == positive
                seen.add(positive)
    assert seen == {True, False}


class _Words:
    """Stands in for a tokenizer."""

    def encode_batch(self, texts):
        return [type("E", (), {"ids": [0, 1 + len(text) % 50, 1]}) for text in texts]


def test_no_unknown_word_is_known(vocabulary):
    known = set(known_phrases(vocabulary)) | {concept.plural for concept in vocabulary.concepts}
    assert not known & set(TRAINING_WORDS)
    assert not known & set(TEST_WORDS)
    assert not set(TRAINING_WORDS) & set(TEST_WORDS)


def test_the_vocabulary_is_large_and_every_word_means_something(vocabulary):
    assert len(vocabulary) >= 400
    assert all(concept.icons for concept in vocabulary.concepts)
    assert vocabulary.by_word["kitten"] == vocabulary.by_word["cat"]
    assert vocabulary.by_word["fruit"] > vocabulary.by_word["apple"]


@given(st.integers(16, 40), st.integers(16, 40), st.integers(0, 1000))
def test_orthogonal_brings_singular_values_near_one(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonal(matrix))
    assert float(after.max()) < 1.35
    assert float(after[before > 0.05 * before.norm()].min()) > 0.5


def test_figures_add_up():
    square, other = np.zeros((2, 1, 8, 8), bool)
    square[0, :4, :4], other[0, 4:, 4:] = True, True
    nothing = np.zeros((0, 8, 8), bool)
    figures = summarise([compare(square, square), compare(other, square), compare(nothing, nothing)])
    assert figures.f1 == pytest.approx(2 * 1 / (2 + 2))
    assert figures.mean_iou == 1.0
    assert figures.left_empty == 1.0
