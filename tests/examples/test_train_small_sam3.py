"""The worked example: a run that is interrupted and resumed is the same run; what it writes opens as a checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import s3seg
from s3seg.sam3.predictor import BoxPrompt, Predictor, Query
from train_small_sam3.average import average
from train_small_sam3.batches import BatchMaker
from train_small_sam3.calibrate import Calibration, best
from train_small_sam3.curve import draw_curve
from train_small_sam3.evaluate import Answer, evaluate
from train_small_sam3.export import export
from train_small_sam3.metrics import compare, summarise
from train_small_sam3.muon import Muon, orthogonal
from train_small_sam3.parents import open_parent
from train_small_sam3.repeat import repeat
from train_small_sam3.settings import ALL_BUT_CLICKS, CLICKS_ONLY, TINY, Settings
from train_small_sam3.splits import CLICKS, SPLITS
from train_small_sam3.state import open_any, resume, start
from train_small_sam3.step import kept_in_fp32, losses
from train_small_sam3.train import begin_cool_down, steps_made, train


def _tensors(run):
    content = torch.load(run / "state.pt", weights_only=True)
    flat = {f"model.{k}": v for k, v in content["model"].items()}
    flat |= {f"{part}.{k}": v for part in ("average", "heads") for k, v in content[part].items()}
    for i, optimiser in enumerate(content["optimisers"]):
        for weight, state in optimiser["state"].items():
            flat |= {f"optimiser.{i}.{weight}.{k}": v for k, v in state.items()}
    return content["step"], flat


def test_six_steps_are_three_and_three_after_a_pause(run, finished_run):
    assert train(run, minutes=10, last_step=3) == 3
    assert train(run, minutes=10) == 6
    (steps, whole), (_, pieces) = _tensors(finished_run), _tensors(run)
    assert steps == 6
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_a_run_that_is_out_of_time_stops_and_can_go_on(run):
    assert train(run, minutes=0) == 1
    assert train(run, minutes=10) == 6
    logged = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert logged == [1, 6]


def test_training_changes_every_weight_that_the_checkpoint_holds(new_run, finished_run):
    before = torch.load(new_run / "state.pt", weights_only=True)["model"]
    after = torch.load(finished_run / "state.pt", weights_only=True)["model"]
    unchanged = {name for name in before if torch.equal(before[name], after[name])}
    # the tiny run may not show any boxes, and then nothing reaches the geometry encoder
    assert not {name for name in unchanged if not name.startswith("geometry.")}


def test_what_a_run_exports_opens_as_a_checkpoint(finished_run, tmp_path, vocabulary):
    export(finished_run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25)
    seg = s3seg.Segmenter(tmp_path / "checkpoint", device="cpu")
    result = seg.segment(np.zeros((50, 80, 3), np.uint8), "cat")
    assert result.masks.shape[1:] == (50, 80)
    state, _, _ = resume(finished_run, vocabulary)
    ours = seg.predictor.model.state_dict()
    assert ours.keys() == state.average.keys()
    assert all(torch.equal(ours[k], v.half().float()) for k, v in state.average.items())


def test_a_text_beside_a_prompt_with_boxes_is_answered_as_if_alone(new_run, tmp_path):
    export(new_run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25)
    predictor = Predictor.from_path(tmp_path / "checkpoint", device="cpu", dtype="float32")
    predictor.model.geometry.cls.add_(1)
    (image,) = predictor.encode_images([np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)])
    said, shown = Query("cat"), Query("visual", (BoxPrompt((0.5, 0.5, 0.4, 0.4), positive=True),))
    (alone,) = predictor.predict(image, [said], threshold=0)
    beside, _ = predictor.predict(image, [said, shown], threshold=0)
    np.testing.assert_allclose(beside.scores, alone.scores, atol=1e-6)


def test_a_checkpoint_is_measured_on_scenes_and_its_run_is_drawn(finished_run, tmp_path, capsys):
    export(finished_run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25)
    figures = evaluate(tmp_path / "checkpoint", scenes=1, splits=SPLITS[:2], threshold=0.5, dtype="float32")
    assert set(figures["splits"]) == {*SPLITS[:2]} - {"validation"}
    assert all(split in capsys.readouterr().out for split in figures["splits"])
    draw_curve(finished_run, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


@pytest.mark.slow
def test_the_whole_run_goes_from_nothing_to_a_checkpoint_and_its_figures_in_some_minutes(tmp_path, capsys, atlas):
    figures = repeat(tmp_path, size="tiny", scenes=2, minutes=0.02)
    seg = s3seg.Segmenter(tmp_path / "checkpoint", device="cpu")
    assert seg.segment(np.zeros((40, 40, 3), np.uint8), "cat").masks.shape[1:] == (40, 40)
    assert set(figures["splits"]) == {*SPLITS} - {"validation", *CLICKS}
    assert all(name in capsys.readouterr().out for name in ["twemoji"])
    assert (tmp_path / "grid.png").stat().st_size > 0
    assert (tmp_path / "curve.png").stat().st_size > 0
    assert (tmp_path / "extras.safetensors").stat().st_size > 0
    settings = Settings.load(tmp_path / "run")
    assert settings.rate(settings.steps) == 0  # it was cooled down
    assert train(tmp_path / "run", minutes=1) == settings.steps  # there is nothing left to do


def test_figures_add_up():
    square, other = np.zeros((2, 1, 8, 8), bool)
    square[0, :4, :4], other[0, 4:, 4:] = True, True
    nothing = np.zeros((0, 8, 8), bool)
    figures = summarise([compare(square, square), compare(other, square), compare(nothing, nothing)])
    assert figures.f1 == pytest.approx(2 * 1 / (2 + 2))
    assert figures.mean_iou == 1.0
    assert figures.left_empty == 1.0


@given(st.integers(16, 40), st.integers(16, 40), st.integers(0, 1000))
def test_orthogonal_brings_singular_values_near_one(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(orthogonal(matrix))
    assert float(after.max()) < 1.35
    assert float(after[before > 0.05 * before.norm()].min()) > 0.5


@pytest.mark.slow
def test_a_grown_network_keeps_what_its_parent_learned(finished_run, tmp_path, vocabulary, atlas):
    child = tmp_path / "child"
    start(child, replace(TINY, vit_depth=2, queries=9), vocabulary, atlas, open_any(finished_run))
    (parent, _, _), (grown, _, _) = resume(finished_run, vocabulary), resume(child, vocabulary)
    before, after = parent.model.state_dict(), grown.model.state_dict()
    resized = {"decoder.query_embedding", "decoder.reference_boxes"}
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - resized)
    assert any(name.startswith("geometry.") for name in before)
    assert all(torch.equal(w, grown.heads.state_dict()[n]) for n, w in parent.heads.state_dict().items())
    kept = parent.momenta.keys() & grown.momenta.keys()
    assert len(kept) > 0.9 * len(parent.momenta)
    assert all(torch.equal(parent.momenta[name], grown.momenta[name]) for name in kept)


def test_heads_and_momenta_can_be_kept_beside_a_checkpoint(finished_run, tmp_path, vocabulary):
    extras = tmp_path / "extras.safetensors"
    export(finished_run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25, extras=extras)
    learned, kept = open_any(finished_run), open_parent(tmp_path / "checkpoint", extras)
    assert kept.boxes
    assert kept.concepts == vocabulary.names
    assert kept.momenta.keys() == learned.momenta.keys()
    assert all(torch.equal(w.bfloat16().float(), kept.heads[name]) for name, w in learned.heads.items())
    bare = open_parent(tmp_path / "checkpoint")
    assert TINY.grown(bare).warm_heads > TINY.grown(kept).warm_heads == 0


def test_a_head_follows_its_concept_into_a_larger_vocabulary(new_run, tmp_path, vocabulary, atlas):
    concepts = vocabulary.concepts
    larger = replace(vocabulary, concepts=(*concepts[1:], replace(concepts[0], name="novelty"), concepts[0]))
    start(tmp_path / "child", TINY, larger, atlas, open_any(new_run))
    old, new = open_any(new_run).heads["attributes.bias"], open_any(tmp_path / "child").heads["attributes.bias"]
    assert torch.equal(new[: len(concepts) - 1], old[1 : len(concepts)])
    assert new[len(concepts)] == old[0]
    assert torch.equal(new[len(concepts) + 1 :], old[len(concepts) :])
    with pytest.raises(ValueError, match="table of concepts"):
        resume(tmp_path / "child", vocabulary)


@pytest.mark.slow
def test_the_network_is_frozen_while_the_heads_are_warmed_up(run):
    replace(TINY, warm_heads=2).save(run)
    before = torch.load(run / "state.pt", weights_only=True)
    train(run, minutes=10, last_step=2)
    after = torch.load(run / "state.pt", weights_only=True)
    assert all(torch.equal(before["model"][name], w) for name, w in after["model"].items())
    assert not torch.equal(before["heads"]["patch.weight"], after["heads"]["patch.weight"])
    train(run, minutes=10)
    later = torch.load(run / "state.pt", weights_only=True)
    assert not torch.equal(
        before["model"]["text.token_embedding.weight"], later["model"]["text.token_embedding.weight"]
    )


@pytest.mark.parametrize("part", [ALL_BUT_CLICKS, CLICKS_ONLY])
def test_a_run_may_train_all_but_the_click_head_or_the_click_head_alone(tmp_path, vocabulary, atlas, part):
    settings = replace(TINY, clicks=True, clicked_things=2, trained_part=part, steps=2)
    start(tmp_path, settings, vocabulary, atlas, None)
    before = torch.load(tmp_path / "state.pt", weights_only=True)
    train(tmp_path, minutes=10)
    after = torch.load(tmp_path / "state.pt", weights_only=True)
    changed = {name for name, weight in after["model"].items() if not torch.equal(before["model"][name], weight)}
    of_clicks = {name for name in after["model"] if name.startswith("clicks.")}
    assert changed <= of_clicks if part == CLICKS_ONLY else not changed & of_clicks
    assert len(changed) > 20
    assert torch.equal(before["heads"]["scale"], after["heads"]["scale"]) == (part == CLICKS_ONLY)


def test_a_calibration_changes_scores_as_it_says_and_nothing_else(new_run, tmp_path):
    export(new_run, tmp_path, name="mine", version="1", threshold=0.25, dtype=torch.float32)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    def found():
        predictor = Predictor.from_path(tmp_path, device="cpu", dtype="float32")
        (features,) = predictor.encode_images([image])
        return predictor.predict(features, [Query("cat")], threshold=0)[0]

    calibration = Calibration(query_slope=1.4, presence_slope=0.7, presence_shift=0.5)
    before = found()
    calibration.write_to(tmp_path)
    after = found()
    nothing = np.zeros((len(before.scores), 0))
    wanted = calibration.apply_to(Answer("validation", "cat", before.scores, nothing, before.presence))
    np.testing.assert_allclose(after.scores, wanted.scores, rtol=1e-4)
    assert after.presence == pytest.approx(wanted.presence, rel=1e-4)
    np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy)
    assert abs(after.scores - before.scores).max() > 0.02
    calibration.inverse.write_to(tmp_path)
    np.testing.assert_allclose(found().scores, before.scores, rtol=1e-3)


def test_the_calibration_is_chosen_that_tells_right_answers_from_wrong_ones():
    right = Answer("validation", "", np.array([0.99 * 0.55]), iou=np.ones((1, 1)), presence=0.99)
    wrong = Answer("validation", "", np.array([0.6 * 0.99]), iou=np.zeros((1, 0)), presence=0.6)  # nothing is there
    chosen, after, before = best({"validation": [right, wrong] * 20})
    assert (before, after) == (0, 1)
    assert chosen.apply_to(right).scores[0] > chosen.apply_to(wrong).scores[0]


def test_of_calibrations_that_are_as_good_the_mildest_is_chosen():
    right = Answer("validation", "", np.array([0.9]), iou=np.ones((1, 1)), presence=0.95)
    wrong = Answer("validation", "", np.array([0.1]), iou=np.zeros((1, 0)), presence=0.15)
    assert best({"validation": [right, wrong] * 20}) == (Calibration(), 1, 1)


def test_an_average_lies_between_a_checkpoint_and_its_parent(new_run, finished_run, tmp_path):
    for run, name in ((new_run, "parent"), (finished_run, "child")):
        export(run, tmp_path / name, name="mine", version="1", threshold=0.25, dtype=torch.float32)
    average(tmp_path / "child", tmp_path / "parent", tmp_path / "both", share=0.75)
    parent, child, both = (load_file(tmp_path / name / "model.safetensors") for name in ("parent", "child", "both"))
    for name, weight in both.items():
        torch.testing.assert_close(weight, 0.75 * child[name] + 0.25 * parent[name])
    for out in ("child", "parent"):
        with pytest.raises(ValueError, match="name another folder"):
            average(tmp_path / "child", tmp_path / "parent", tmp_path / out)
    del child["detr_decoder.presence_token.weight"]
    save_file(child, tmp_path / "child" / "model.safetensors")
    with pytest.raises(ValueError, match="presence_token"):
        average(tmp_path / "child", tmp_path / "parent", tmp_path / "both")


def test_settings_are_given_by_name_and_value():
    settings = Settings().with_overrides(["batch=8", "asked=0.5", "clicks=true", "trained_part=clicks_only"])
    assert settings == replace(Settings(), batch=8, asked=0.5, clicks=True, trained_part="clicks_only")
    for wrong, said in (
        ("bach=8", "'bach'"),
        ("clicks=yes", "bool, not 'yes'"),
        ("batch=many", "int, not 'many'"),
        ("trained_part=words", "not 'words'"),
        ("trained_part=clicks_only", "set clicks=true"),
        ("precision=float16", "not 'float16'"),
        ("shape_scenes=1.1", "add up to more than 1"),
    ):
        with pytest.raises(ValueError, match=said):
            Settings().with_overrides([wrong])
    with pytest.raises(ValueError, match="set warm_heads=0"):
        Settings(clicks=True, trained_part=CLICKS_ONLY, warm_heads=60)


def test_the_rate_rises_stays_and_falls_to_zero():
    settings = Settings(steps=1000, warmup=100, cooldown=0.4)
    assert settings.rate(49) == 0.5
    assert settings.rate(300) == settings.rate(599) == 1
    assert settings.rate(800) == pytest.approx(0.5)
    assert settings.rate(1000) == 0


def test_a_cool_down_is_planned_at_the_speed_of_the_steps_that_trained_the_network(new_run, tmp_path):
    shutil.copytree(new_run, tmp_path, dirs_exist_ok=True)
    replace(TINY, warm_heads=2, steps=10**9).save(tmp_path)
    lines = [{"step": 2, "images_a_second": 100.0}, {"step": 4, "images_a_second": 1.0}]  # frozen, then not
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert begin_cool_down(tmp_path, minutes=0.1).steps == steps_made(tmp_path) + 3  # 6 seconds are 3 steps of 2


def test_a_cool_down_that_has_begun_goes_on_from_its_rate_and_one_that_cannot_begin_says_why(new_run, tmp_path):
    shutil.copytree(new_run, tmp_path, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="has not trained yet"):
        begin_cool_down(tmp_path, minutes=0.1)
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 4, "images_a_second": 2.0}))
    step = steps_made(tmp_path)
    replace(TINY, warmup=0, steps=step + 5, cooldown=10 / (step + 5)).save(tmp_path)  # at half of the full rate
    settings = begin_cool_down(tmp_path, minutes=0.1)
    assert [settings.rate(step), settings.rate(step + 3), settings.rate(step + 6)] == pytest.approx([0.5, 0.25, 0])
    replace(TINY, steps=step).save(tmp_path)
    with pytest.raises(ValueError, match="reached zero"):
        begin_cool_down(tmp_path, minutes=0.1)


@pytest.mark.slow
def test_a_cool_down_that_is_planned_later_starts_at_the_step_that_the_run_has_reached(run):
    replace(TINY, steps=10**9).save(run)
    train(run, minutes=10, last_step=4)
    line = json.dumps({"step": 4, "images_a_second": 3.0})
    (run / "log.jsonl").write_text(f"{line}\n{line}\n")
    settings = begin_cool_down(run, minutes=0.1)  # 6 seconds are 18 images, 9 steps of 2
    assert settings.steps == 4 + 9
    assert settings.rate(4) == 1
    assert settings.rate(4 + 3) == pytest.approx(6 / 9)
    assert train(run, minutes=10) == steps_made(run) == 13


def test_in_bf16_the_losses_are_nearly_the_same_and_stay_fp32(new_run, vocabulary, atlas):
    state, settings, tokenizer = resume(new_run, vocabulary)
    batch = BatchMaker(settings, vocabulary, atlas, tokenizer)[0]
    full = losses(state.model, state.heads, batch, dense_only=False)
    with kept_in_fp32(state.model):
        half = losses(state.model, state.heads, batch, dense_only=False, precision="bf16")
    assert half.total.dtype == torch.float32
    assert {part.dtype for part in half.parts.values()} == {torch.float32}
    assert float(half.total.detach()) == pytest.approx(float(full.total.detach()), rel=2e-2)
    assert "forward" not in vars(state.model.scoring)  # the network is as it was
    half.total.backward()
    assert all(w.grad is None or w.grad.isfinite().all() for w in state.model.parameters())


def test_muon_moves_stacked_matrices_as_it_moves_each_alone():
    torch.manual_seed(0)
    shapes = [(24, 16), (16, 24), (24, 16), (48, 16)]
    together = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [torch.nn.Parameter(w.detach().clone()) for w in together]
    optimisers = [Muon(together, lr=0.1), *(Muon([w], lr=0.1) for w in alone)]
    for _ in range(3):
        for a, b in zip(together, alone, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)
