"""What the training example trains and is tested on: icons, scenes, prompts, batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from train_small_sam3 import batches, icon_pack, prompts, scenes
from train_small_sam3.concepts import EXAMINED
from train_small_sam3.export import known_phrases
from train_small_sam3.icon_sets import EXAMINED_STYLES, HELD_OUT_STYLES, SEEN_STYLES, chosen_drawings
from train_small_sam3.meanings import NONE, Meanings
from train_small_sam3.settings import TINY
from train_small_sam3.splits import RECIPES
from train_small_sam3.unknown_words import TEST_WORDS, TRAINING_WORDS


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


def test_texts_that_only_the_dense_losses_use_name_no_held_out_combination_either(vocabulary):
    rng = np.random.default_rng(0)
    maker, examiner = (prompts.PromptMaker(vocabulary, held_out=held_out) for held_out in (False, True))
    said, examined = ({(p.colour, p.shape) for p in (m.anything(rng) for _ in range(2000))} for m in (maker, examiner))
    assert not said & scenes.HELD_OUT_COMBINATIONS
    assert len(said) > 100
    assert examined & scenes.HELD_OUT_COMBINATIONS


@pytest.mark.parametrize("more", ["painted_scenes", "shape_scenes"])
def test_a_run_may_draw_more_scenes_of_painted_things_or_of_shapes(vocabulary, atlas, more):
    def share(settings) -> float:
        looks = batches.BatchMaker(settings, vocabulary, atlas, _Words()).scenes(0).attributes[:, 1:].flatten(0, 1)
        concept, shape, colour, _ = looks[looks[:, 0] >= 0].T
        wanted = shape >= 0 if more == "shape_scenes" else (concept < len(vocabulary)) & (colour >= 0)
        return float(wanted.float().mean())

    settings = replace(TINY, batch=12, elsewhere=0.0)
    assert share(replace(settings, **{more: 1.0})) > max(0.6, share(settings) + 0.2)


def test_a_row_shown_by_boxes_asks_for_the_things_that_look_alike(vocabulary, atlas):
    settings = replace(TINY, batch=8, prompts=4, boxes=1.0, elsewhere=0.0)
    maker = batches.BatchMaker(settings, vocabulary, atlas, _Words())
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


def test_a_row_shown_on_another_image_asks_for_what_the_box_there_is_around(vocabulary, atlas):
    settings = replace(TINY, batch=8, prompts=4, boxes=0.0, elsewhere=1.0)
    maker = batches.BatchMaker(settings, vocabulary, atlas, _Words())
    answered = []
    for step in range(12):
        batch = maker[step]
        rows = (batch.shown_image != batch.row_image).nonzero()[:, 0].tolist()
        for row in rows:
            here, there = int(batch.row_image[row]), int(batch.shown_image[row])
            assert here // 2 == there // 2
            shown = int((batch.boxes[there] - batch.shown_boxes[row, 0]).abs().sum(1).argmin())
            looks = batch.attributes[there, 1 + shown, :3]  # concept, shape, colour
            alike = (batch.attributes[here, 1:, :3] == looks).all(1) & batch.valid[here]
            assert torch.equal(batch.row_targets[row], alike)
            answered.append(bool(alike.any()))
    assert sum(answered) > 0.3 * len(answered) > 5
    assert not all(answered)


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
    assert vocabulary.by_word["kitten"] == vocabulary.by_word["cat"]
    assert vocabulary.by_word["fruit"] > vocabulary.by_word["apple"]


def test_every_chosen_drawing_is_of_a_known_concept(vocabulary):
    drawn = {name for concepts in chosen_drawings().values() for name in concepts}
    assert drawn <= set(vocabulary.names)
    assert all(concept.icons or concept.name in drawn for concept in vocabulary.concepts)


def test_no_style_is_both_trained_on_and_held_out():
    assert not {style.name for style in SEEN_STYLES} & {style.name for style in HELD_OUT_STYLES}
    assert not [style for style in SEEN_STYLES if "SA" in style.licence]


def test_a_pack_of_icons_keeps_exact_drawings_and_every_alpha(tmp_path):
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    alpha[:, :8] = 0
    smooth = np.linspace(0, 255, 32).astype(np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    pixels = [np.concatenate([smooth * (a / 255), a], axis=2).astype(np.uint8) for a in alpha]
    written = [("cat", "noto", pixels[0], True), ("dog", "noto", pixels[1], False)]
    icon_pack.write(tmp_path / "icons.pack", written, made_for="these tables")
    made_for, drawings, found = icon_pack.read(tmp_path / "icons.pack")
    assert made_for == icon_pack.made_for(tmp_path / "icons.pack") == "these tables"
    assert drawings == [("cat", "noto"), ("dog", "noto")]
    assert np.array_equal(found[0], pixels[0])
    assert np.array_equal(found[1][..., 3], pixels[1][..., 3])
    assert np.abs(found[1][..., :3].astype(int) - pixels[1][..., :3]).mean() < 8
    assert (found[1][..., :3] <= found[1][..., 3:]).all()


def test_tables_find_what_prompts_find(vocabulary, atlas):
    meanings, maker = Meanings(vocabulary), prompts.PromptMaker(vocabulary)
    recipe = replace(scenes.TRAINING, size=96, styles=("noto",))
    compared = 0
    for seed in range(20):
        rng, scene = np.random.default_rng(seed), scenes.draw_scene(seed, recipe, vocabulary, atlas)
        if not scene.things:
            continue
        asked = [None, *maker.for_training(scene, 8, rng), *maker.names(rng)[::9]]
        things = np.array([*map(meanings.of_thing, scene.things), (NONE, NONE, NONE)])
        found, unclear = meanings.compare(asked, things)
        assert not found[-1].any()
        assert not found[:, 0].any()
        for i, thing in enumerate(scene.things):
            for k, prompt in enumerate(asked[1:], start=1):
                assert found[i, k] == prompt.finds(thing)
                assert unclear[i, k] == prompt.is_unclear_about(thing)
                compared += bool(found[i, k])
    assert compared > 50


@pytest.mark.parametrize("seed", range(8))
def test_training_asks_a_fixed_number_of_prompts_the_answered_ones_first(vocabulary, atlas, seed):
    recipe = replace(scenes.TRAINING, size=96, styles=("noto",))
    scene = scenes.draw_scene(seed, recipe, vocabulary, atlas)
    asked = prompts.PromptMaker(vocabulary).for_training(scene, 8, np.random.default_rng(seed))
    answered = [any(p.finds(t) for t in scene.things) for p in asked]
    assert len({p.words for p in asked}) == len(asked) == 8
    assert answered == sorted(answered, reverse=True)
    assert sum(answered) <= 4
    assert any(answered) == bool(scene.things)


def test_a_photographed_scene_keeps_things_and_ids_together(vocabulary, atlas):
    recipe = scenes.Recipe(size=96, styles=("noto",), photographed=1.0)
    scene = scenes.draw_scene(3, recipe, vocabulary, atlas)
    plain = scenes.draw_scene(3, replace(recipe, photographed=0.0), vocabulary, atlas)
    assert scene.things == plain.things
    assert scene.image.shape == plain.image.shape
    assert scene.image.dtype == np.uint8
    assert set(np.unique(scene.ids)) <= set(range(len(scene.things) + 1))
    assert not np.array_equal(scene.ids, plain.ids)


def test_the_evaluation_draws_and_asks_what_it_always_did(vocabulary):
    for split, recipe in RECIPES.items():
        made = recipe(scenes.Recipe(concepts=tuple(range(EXAMINED))), vocabulary)
        assert set(made.styles) <= {*EXAMINED_STYLES, *(style.name for style in HELD_OUT_STYLES)}
        assert max(made.concepts) < EXAMINED
        assert made.photographed == (split == "photographed drawings")
        assert {made.textures, made.harsh, made.one_style} == {0.0}
        assert not made.paint_more
