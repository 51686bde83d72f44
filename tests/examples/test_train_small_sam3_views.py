"""One drawn scene gives several views, and in each the network is told what is where as it is seen."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from train_small_sam3 import scenes, views
from train_small_sam3.appearance import finish
from train_small_sam3.batch import BACKGROUND, UNCLEAR
from train_small_sam3.batches import BatchMaker, mask_box
from train_small_sam3.feed import feed
from train_small_sam3.settings import TINY
from train_small_sam3.state import start

SETTINGS = replace(TINY, batch=8, prompts=4, views=3, extra_texts=8, elsewhere=0.5, boxes=0.5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, vocabulary, atlas):
    """A run that makes three views of each scene, and the maker of its batches."""
    run = tmp_path_factory.mktemp("views") / "run"
    start(run, SETTINGS, vocabulary, atlas, None)
    return run, BatchMaker(SETTINGS, vocabulary, atlas, Tokenizer.from_file(str(run / "tokenizer.json")))


@pytest.fixture(scope="module")
def drawn(prepared):
    return prepared[1].scenes(0)


def test_targets_are_what_a_picture_of_ids_shows():
    rng = np.random.default_rng(0)
    ids = np.zeros((6, 64, 64), np.uint8)
    for picture in ids:
        for thing in range(1, 5):
            x, y, w, h = (*rng.integers(0, 50, 2), *rng.integers(3, 40, 2))
            picture[y : y + h, x : x + w] = thing
    labels, boxes, masks, valid = views.targets(torch.from_numpy(ids), 10, 4)
    for b, picture in enumerate(ids):
        for thing in range(10):
            mask = picture == thing + 1
            assert bool(valid[b, thing]) == (mask.sum() >= scenes.SMALLEST_INSTANCE * (64 / 224) ** 2)
            if not valid[b, thing]:
                assert not boxes[b, thing].any()
                assert not masks[b, thing].any()
                continue
            np.testing.assert_allclose(boxes[b, thing].numpy(), mask_box(mask) / 64, atol=1e-6)
            small = cv2.resize(mask.view(np.uint8) * 255, (16, 16), interpolation=cv2.INTER_AREA)
            assert np.abs(masks[b, thing].numpy().astype(int) - small).max() <= 1
        patches = picture.reshape(4, 16, 4, 16).swapaxes(1, 2).reshape(16, -1)
        for patch, label in zip(patches, labels[b].flatten().tolist(), strict=True):
            share = np.bincount(patch, minlength=11) / patch.size
            most = int(share[1:].argmax()) + 1
            expected = BACKGROUND if share[0] > 0.9 else most if share[most] > 0.4 else UNCLEAR
            assert label == expected


def test_the_first_view_shows_things_where_they_were_drawn(drawn):
    seen = views.look(drawn, 0, seed=1, grid=SETTINGS.grid, photographed=0.0)
    labels, boxes, masks, valid = views.targets(drawn.ids, scenes.MOST_THINGS, SETTINGS.grid)
    for found, expected in ((seen.patch_labels, labels), (seen.boxes, boxes), (seen.masks, masks), (seen.valid, valid)):
        assert torch.equal(found, expected)
    plain = drawn.images.permute(0, 3, 1, 2).float()
    closeness = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(plain, seen.images.float(), strict=True)]
    assert min(closeness) > 0.6


@pytest.mark.parametrize("photographed", [0.0, 1.0])
def test_pictures_and_ids_move_together(photographed):
    """Things of one colour each: wherever an id is seen, so is its colour."""
    ids = torch.zeros(16, 64, 64, dtype=torch.uint8)
    ids[:, 8:30, 12:40], ids[:, 36:60, 30:58] = 1, 2
    colours = torch.tensor([[0, 0, 0], [200, 20, 20], [20, 20, 200]], dtype=torch.uint8)
    rng = torch.Generator().manual_seed(2)
    matrix = views._homographies(torch.rand(16, generator=rng) < photographed, True, rng)
    images, moved = views._warp(colours[ids.long()].permute(0, 3, 1, 2).float(), ids, matrix, rng)
    for thing in (1, 2):
        there = moved == thing
        assert (there.flatten(1).sum(1) > 100).all()
        assert not torch.equal(there, ids == thing)
        inner = torch.nn.functional.avg_pool2d(there.float()[:, None], 3, 1, 1)[:, 0] == 1  # away from edges
        found = images.permute(0, 2, 3, 1)[inner]
        assert (found - colours[thing]).abs().max() < 1


def test_views_of_a_scene_differ_and_keep_most_of_its_things(drawn):
    first, second, third = (views.look(drawn, v, seed=v, grid=SETTINGS.grid) for v in range(3))
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(second.boxes, third.boxes)
    assert not torch.equal(first.token_ids, second.token_ids)  # other questions
    assert all(torch.equal(first.attributes, view.attributes) for view in (second, third))
    kept = [(view.valid & first.valid).sum() / first.valid.sum() for view in (second, third)]
    assert min(kept) > 0.75


def test_what_rows_ask_for_is_visible_and_what_boxes_are_around_too(prepared):
    for step in range(9):
        batch = prepared[1][step]
        assert not (batch.row_targets & ~batch.valid[batch.row_image]).any()
        assert not (batch.matches[:, 1:] & ~batch.valid[..., None]).any()
        for row, k in batch.shown_valid.nonzero().tolist():
            on = int(batch.shown_image[row])
            nearest = (batch.boxes[on] - batch.shown_boxes[row, k]).abs().sum(1)[batch.valid[on]].min()
            assert nearest < 0.4


def test_a_batch_is_the_same_wherever_a_run_is_taken_up(prepared):
    run, maker = prepared
    with feed(run, range(2, 5), workers=0, device=torch.device("cpu")) as batches:
        for step, batch in zip(range(2, 5), batches, strict=True):
            alone = maker[step]
            assert all(torch.equal(getattr(batch, f.name), getattr(alone, f.name)) for f in fields(batch))


def test_what_changes_a_whole_picture_has_the_same_strength_as_on_a_cpu(vocabulary, atlas):
    """Contrast and noise of many scenes, finished by `scenes` one by one and by `appearance` together."""
    size, count = 96, 60
    drawn = scenes.Recipe(size=size, styles=("noto",), photographed=0.3, finished=False)
    plain = [scenes.draw_scene(seed, drawn, vocabulary, atlas).image for seed in range(count)]
    alone = np.stack(
        [scenes.draw_scene(s, replace(drawn, finished=True), vocabulary, atlas).image for s in range(count)]
    )
    images = torch.from_numpy(np.stack(plain)).permute(0, 3, 1, 2).float()
    rng = torch.Generator().manual_seed(0)
    together = finish(images, torch.rand(count, generator=rng) < 0.3, rng).permute(0, 2, 3, 1).numpy()
    for of in (np.mean, np.std, lambda x: np.abs(np.diff(x.astype(float), axis=2)).mean()):
        assert of(together) == pytest.approx(of(alone), rel=0.15)


def test_clicks_are_on_things_that_count(drawn):
    masks, valid = (views.targets(drawn.ids, scenes.MOST_THINGS, SETTINGS.grid)[k] for k in (2, 3))
    for seed in range(5):
        things, points = views._clicks(masks, valid, 3, torch.Generator().manual_seed(seed))
        image = torch.arange(len(valid))[:, None]
        x, y = (points * masks.shape[-1]).long().unbind(-1)
        counts = valid.gather(1, things)
        assert torch.equal(counts.sum(1), valid.sum(1).clamp(max=3))  # valid things go first
        assert all(len(set(row.tolist())) == 3 for row in things)
        assert bool((masks[image, things, y, x] > 0)[counts].all())
        assert bool((points[~counts] == 0.5).all())
