"""What lets the worked example train on a GPU, tested on the CPU: workers, fixed shapes, and nothing that waits."""

from __future__ import annotations

import contextlib
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from s3seg.sam3.click_predictor import ClickQuery
from s3seg.sam3.predictor import BoxPrompt, Predictor, Query
from train_small_sam3 import bundle, tall, within
from train_small_sam3 import step as step_module
from train_small_sam3.batch import normalise
from train_small_sam3.batches import MOST_TOKENS, BatchMaker, TextCache
from train_small_sam3.click_losses import click_losses, click_predictions, clicked_masks, next_click
from train_small_sam3.compiled import _alarm, compiled_within
from train_small_sam3.detection_losses import detection_losses
from train_small_sam3.evaluate import BARS, Answer, evaluate, table
from train_small_sam3.export import export
from train_small_sam3.feed import Packed, feed
from train_small_sam3.matching import match
from train_small_sam3.metrics import Figures
from train_small_sam3.muon import Muon
from train_small_sam3.settings import NO_END, TINY, Settings
from train_small_sam3.splits import SPLITS
from train_small_sam3.state import resume, start
from train_small_sam3.step import kept_in_fp32, losses
from train_small_sam3.train import train
from train_small_sam3.views import look

ROOT = Path(__file__).parents[2]
SETTINGS = replace(TINY, batch=4, prompts=4, queries=16, boxes=0.5, extra_texts=8, dense_texts=20)


@pytest.fixture(scope="module")
def ready_run(tmp_path_factory, vocabulary, atlas):
    """A run with a few more prompts and queries than the tiny one; it is only read."""
    run = tmp_path_factory.mktemp("ready") / "run"
    start(run, SETTINGS, vocabulary, atlas, None)
    return run


@pytest.fixture
def ready(ready_run, vocabulary, atlas):
    """A state, and the maker of its batches."""
    state, settings, tokenizer = resume(ready_run, vocabulary)
    return state, BatchMaker(settings, vocabulary, atlas, tokenizer)


def _same(a, b):
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def test_all_batches_have_the_same_shapes_and_what_the_rows_ask_is_among_the_texts(ready):
    _, maker = ready
    batches = [maker[step] for step in range(5)]
    assert len({tuple((f.name, getattr(b, f.name).shape) for f in fields(b)) for b in batches}) == 1
    for batch in batches:
        assert batch.texts == 20
        assert batch.matches.shape[-1] == batch.texts + batch.names < len(batch.token_ids)
        assert int(batch.row_text.max()) < len(batch.token_ids)
        asked = batch.row_text < batch.texts
        assert bool(asked.any())  # those of which the dense losses know what they find
        row = int(asked.nonzero()[0])
        found = batch.matches[batch.row_image[row], 1:, batch.row_text[row]]
        shown = bool(batch.shown_valid[row].any())
        assert shown or torch.equal(found & batch.valid[batch.row_image[row]], batch.row_targets[row])


def test_a_text_that_is_too_long_keeps_its_end():
    class Long:
        def encode_batch(self, texts):
            return [type("E", (), {"ids": [0, *range(2, 40), 1]}) for _ in texts]

    ids, valid = TextCache(Long())(["a text"])
    assert ids.shape == valid.shape == (1, MOST_TOKENS)
    assert bool(valid.all())
    assert ids[0, -1] == 1


def test_packed_scenes_are_the_scenes_in_shared_memory_and_through_a_pipe(ready):
    _, maker = ready
    scenes = maker.scenes(3)
    packed = Packed.of(scenes)
    assert packed.block.ndim == 1
    assert _same(packed.on(torch.device("cpu")), scenes)
    piped = pickle.loads(pickle.dumps(packed.for_a_pipe()))
    assert isinstance(piped.block, np.ndarray)
    assert _same(piped.on(torch.device("cpu")), scenes)


def test_without_workers_the_batches_of_some_steps_come_in_order(ready_run, ready):
    _, maker = ready
    with feed(ready_run, range(2, 5), workers=0, device=torch.device("cpu")) as batches:
        assert all(_same(batch, maker[step]) for step, batch in zip(range(2, 5), batches, strict=True))


@pytest.mark.slow
def test_a_run_learns_the_same_however_many_workers_compose_its_scenes(run, finished_run):
    assert train(run, minutes=10, last_step=2, workers=2) == 2
    assert train(run, minutes=10, last_step=4, workers=1) == 4
    assert train(run, minutes=10, workers=0) == 6
    pieces, whole = (torch.load(folder / "state.pt", weights_only=True) for folder in (run, finished_run))
    assert all(torch.equal(w, pieces["model"][name]) for name, w in whole["model"].items())
    assert all(torch.equal(w, pieces["average"][name]) for name, w in whole["average"].items())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_fixed_shapes_change_no_loss_and_no_gradient(ready, step, monkeypatch):
    state, maker = ready
    # both match alike: whether the quick way is good enough is another question, see below
    monkeypatch.setattr(step_module, "detection_losses", lambda found, batch, greedy: detection_losses(found, batch))
    batch, found = maker[step], []
    for fixed in (False, True):
        state.model.zero_grad()
        done = losses(state.model, state.heads, batch, dense_only=False, fixed_shapes=fixed)
        done.total.backward()
        found.append((done, torch.cat([w.grad.flatten() for w in state.model.parameters() if w.grad is not None])))
    (compact, a), (fixed, b) = found
    for name, part in compact.parts.items():
        torch.testing.assert_close(fixed.parts[name], part, rtol=1e-4, atol=1e-5)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.9999


WAITING = {
    f"aten::{name}"
    for name in (
        "item", "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount",
        "repeat_interleave", "equal",
    )
}  # fmt: skip
"""Operations whose result a program on the CPU has to wait for, if the tensors were on a GPU."""


@contextlib.contextmanager
def _waits():
    """Collect such operations. The profiler sees those within others, too, and those of the backward pass."""
    found: list[str] = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        yield found
    found += sorted(WAITING & {event.key for event in profiled.key_averages()})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_fixed_shapes_a_step_never_waits_for_the_device(tmp_path, vocabulary, atlas, precision):
    start(tmp_path / "run", replace(SETTINGS, clicks=True), vocabulary, atlas, None)
    state, settings, tokenizer = resume(tmp_path / "run", vocabulary)
    maker = BatchMaker(settings, vocabulary, atlas, tokenizer)
    scenes = maker.scenes(0)
    with _waits() as waits, kept_in_fp32(state.model):
        batch = look(scenes, 0, seed=1, grid=settings.grid)
        losses(
            state.model, state.heads, batch, dense_only=False, precision=precision, fixed_shapes=True
        ).total.backward()
        next(o for o in state.optimisers if isinstance(o, Muon)).step()
    assert waits == []
    with _waits() as waits:
        losses(state.model, state.heads, maker[0], dense_only=False, fixed_shapes=False)
    assert waits  # the check can fail
    with _waits() as waits:
        torch.ones(3, 2, requires_grad=True).prod(-1).sum().backward()
    assert waits  # in the backward pass, too


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of the compiler
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_layers_and_losses_give_the_same_losses_and_gradients(partly_asked, precision):
    state, maker = partly_asked
    found, given = [], {"dense_only": False, "precision": precision, "fixed_shapes": True}
    with kept_in_fp32(state.model):
        for compiling in (False, True):
            learn = losses
            if compiling:
                learn = compiled_within(300, state, maker[0], precision=precision, backend="aot_eager")
                assert learn is not losses
            for weight in state.learned.values():
                weight.grad = None
            done = learn(state.model, state.heads, maker[1], **given)
            done.total.backward()
            found.append((float(done.total.detach()), torch.cat([
                weight.grad.flatten() for weight in state.learned.values() if weight.grad is not None
            ])))  # fmt: skip
    torch._dynamo.reset()
    (plain, a), (compiled, b) = found
    assert compiled == pytest.approx(plain, rel=1e-4 if precision == "fp32" else 1e-2)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > (0.9999 if precision == "fp32" else 0.98)


def test_a_compiler_that_catches_the_error_of_the_alarm_is_interrupted_all_the_same():
    def catches_the_first():
        with _alarm(0.05):
            with contextlib.suppress(TimeoutError):
                time.sleep(20)
            time.sleep(20)

    with pytest.raises(TimeoutError):
        catches_the_first()
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the compiler
def test_a_compiler_that_fails_leaves_the_network_as_it_was(partly_asked, capsys):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    state, maker = partly_asked
    assert compiled_within(60, state, maker[0], precision="fp32", backend=broken) is losses
    assert "no compiler here" in capsys.readouterr().out
    assert all("forward" not in vars(layer) for layer in state.model.vision.trunk.layers)


def test_taking_the_cheapest_pair_first_is_nearly_as_good_as_the_best_assignment():
    generator = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(3, 40, 16, generator=generator), torch.rand(3, 40, 16, 4, generator=generator)
    true, targets = torch.rand(40, 6, 4, generator=generator), torch.rand(40, 6, generator=generator) < 0.4
    best, quick = (match(logits, boxes, true, targets, greedy=g) for g in (False, True))
    assert torch.equal(best.found, quick.found)
    assert torch.equal(best.found, targets[None].expand(3, -1, -1))
    for layer, row in np.ndindex(3, 40):
        used = quick.query[layer, row][quick.found[layer, row]].tolist()
        assert len(set(used)) == len(used)
    single = targets.sum(1) == 1  # with one thing there is nothing to give way to
    assert torch.equal((best.query * best.found)[:, single], (quick.query * quick.found)[:, single])
    assert (best.query == quick.query)[best.found].float().mean() > 0.8


@pytest.mark.parametrize("greedy", [False, True])
def test_more_things_than_queries_leave_the_dearest_ones_unmatched(greedy):
    boxes, true = torch.rand(1, 2, 3, 4), torch.rand(2, 5, 4)
    pairs = match(torch.zeros(1, 2, 3), boxes, true, torch.ones(2, 5, dtype=torch.bool), greedy=greedy)
    assert pairs.found.sum(-1).tolist() == [[3, 3]]
    assert all(sorted(pairs.query[0, r][pairs.found[0, r]].tolist()) == [0, 1, 2] for r in range(2))


def test_matching_finds_the_assignment_with_the_least_cost():
    cost = torch.tensor([[0.1, 0.2], [0.2, 0.9]])
    rows, columns = linear_sum_assignment(cost.numpy())
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.3, 0.3]])
    true = torch.tensor([[0.5, 0.5, 0.21, 0.21], [0.5, 0.5, 0.2, 0.2]])
    pairs = match(torch.zeros(1, 1, 2), boxes[None, None], true[None], torch.ones(1, 2, dtype=torch.bool), greedy=False)
    assert sorted(pairs.query[0, 0].tolist()) == sorted(rows.tolist()) == [0, 1]
    assert pairs.query[0, 0].tolist() == [1, 0]  # the second thing is the first query's box
    assert columns.tolist() == [1, 0]


def test_a_step_whose_gradients_are_not_finite_does_not_spoil_the_weights(run, monkeypatch):
    from train_small_sam3 import train as module

    def broken(*args, **kwargs):
        done = losses(*args, **kwargs)
        return replace(done, total=done.total * torch.inf)

    monkeypatch.setattr(module, "losses", broken)
    train(run, minutes=10, last_step=2)
    content = torch.load(run / "state.pt", weights_only=True)
    assert all(w.isfinite().all() for w in content["model"].values() if w.is_floating_point())


@pytest.mark.slow
def test_a_bundle_restores_a_run_that_exports_the_same_checkpoint(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "PART_BYTES", 1 << 20)
    (tmp_path / "state.0-of-9").write_bytes(b"of an earlier time")
    parts = bundle.pack(finished_run, tmp_path)
    assert len(parts) > 1
    assert all(part.stat().st_size < (1 << 20) + 200 for part in parts)
    assert {file.name for file in tmp_path.iterdir()} == {part.name for part in parts}
    bundle.unpack(tmp_path, tmp_path / "run")
    for run in (finished_run, tmp_path / "run"):
        export(run, tmp_path / f"from-{run.parent.name}", name="mine", version="1", threshold=0.5)
    ours, theirs = (
        (tmp_path / f"from-{r.parent.name}" / "model.safetensors") for r in (finished_run, tmp_path / "run")
    )
    assert ours.read_bytes() == theirs.read_bytes()
    before, after = (torch.load(r / "state.pt", weights_only=True) for r in (finished_run, tmp_path / "run"))
    assert all(torch.equal(w, after["model"][name]) for name, w in before["model"].items())
    settings = replace(TINY, steps=8)
    settings.save(tmp_path / "run")
    assert train(tmp_path / "run", minutes=10) == 8


def test_a_bundle_of_which_a_file_is_missing_is_refused(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "PART_BYTES", 1 << 20)
    parts = bundle.pack(finished_run, tmp_path)
    parts[1].unlink()
    with pytest.raises(ValueError, match="not one whole bundle"):
        bundle.unpack(tmp_path, tmp_path / "run")
    monkeypatch.setattr(bundle, "MOST_PARTS", 1)
    with pytest.raises(ValueError, match="more than 1 files"):
        bundle.pack(finished_run, tmp_path)


def test_the_clock_ends_the_dense_phase_and_plans_the_cool_down_in_steps(tmp_path, monkeypatch):
    settings, now = replace(TINY, steps=NO_END, dense_steps=NO_END, cooldown=0.4), [0.0]
    monkeypatch.setattr(within.time, "monotonic", lambda: now[0])
    plan = within.TimePlan(tmp_path, began=0.0, seconds=100.0)
    step = 0
    while step < 10_000 and step < settings.steps and now[0] < 100:
        settings = plan(step, settings)
        step += 1
        now[0] += 0.25 if step < 40 else 0.5  # the dense phase is quicker
    assert 7 < settings.dense_steps * 0.25 < 11
    assert settings == Settings.load(tmp_path)  # what follows can be interrupted and resumed
    begin = settings.steps * (1 - settings.cooldown)
    assert settings.rate(round(begin)) == pytest.approx(1, abs=0.02)
    assert settings.rate(settings.steps) == 0
    assert step == settings.steps  # it ended before the time was up
    assert 95 < now[0] < 100


def test_a_run_that_slows_down_while_it_cools_down_ends_in_time_all_the_same(tmp_path, monkeypatch):
    settings, now = replace(TINY, steps=NO_END, dense_steps=0, cooldown=0.4), [0.0]
    monkeypatch.setattr(within.time, "monotonic", lambda: now[0])
    plan = within.TimePlan(tmp_path, began=0.0, seconds=100.0)
    step, rates = 0, []
    while now[0] < 100 and step < settings.steps:
        settings = plan(step, settings)
        rates.append(settings.rate(step))
        step += 1
        now[0] += 0.1 if now[0] < 65 else 0.25
    assert 90 < now[0] <= 100
    assert rates[-1] < 0.03
    assert max(b - a for a, b in pairwise(rates[10:])) < 0.01  # it never rises again


def test_losses_that_stay_infinite_bring_back_the_saved_weights_at_half_the_rates(run, monkeypatch, capsys):
    from train_small_sam3 import train as module

    def broken(*args, **kwargs):
        done = losses(*args, **kwargs)
        return replace(done, total=done.total * torch.inf)

    monkeypatch.setattr(module, "losses", broken)
    monkeypatch.setattr(module, "LOG_EVERY", 2)
    before = torch.load(run / "state.pt", weights_only=True)["model"]
    assert train(run, minutes=10, last_step=3) == 3
    after = torch.load(run / "state.pt", weights_only=True)["model"]
    assert all(torch.equal(w, after[name]) for name, w in before.items())
    assert Settings.load(run).muon_rate <= TINY.muon_rate / 2
    assert "no longer finite" in capsys.readouterr().out


@pytest.mark.slow
def test_the_speed_of_the_network_of_the_scenes_and_of_both_is_measured(icon_cache):
    command = "-m train_small_sam3.speed --size tiny --clicks --views 2 --seconds 0.5 --workers 1"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for part in (
        "the network alone, dense losses only",
        "the network alone, all losses",
        "the scenes alone",
        "both together",
    ):
        (found,) = re.findall(rf"{part}: (\d+) (?:images|scenes)/s", done.stdout)
        assert int(found) > 0


@pytest.mark.slow
def test_without_evaluation_the_run_is_packed_at_the_end_and_nothing_else_happens(tmp_path, atlas):
    found = within.within(
        tmp_path / "out", minutes=0.05, size="tiny", device="cpu", workers=0, work=tmp_path / "work", evaluated=False,
        views=2, batch=4,
    )  # fmt: skip
    assert found == {}
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"state.0-of-1", "log.jsonl"}
    bundle.unpack(tmp_path / "out", tmp_path / "run")
    assert (Settings.load(tmp_path / "run").views, Settings.load(tmp_path / "run").batch) == (2, 4)


@pytest.mark.slow
def test_one_command_trains_evaluates_and_leaves_what_can_be_taken_home_and_taken_up_again(tmp_path, atlas):
    given = {"minutes": 0.4, "size": "tiny", "device": "cpu", "workers": 0, "scenes": 2, "save_seconds": 3}
    figures = within.within(tmp_path / "out", work=tmp_path / "work", **given)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"state.0-of-1", "figures.json", "grid.png", "curve.png", "log.jsonl"}
    assert set(figures["splits"]) <= set(SPLITS)
    first = Settings.load(tmp_path / "work" / "run")
    assert 0 <= first.dense_steps <= first.steps < NO_END  # 0 if the time for them was over before the first step
    within.within(tmp_path / "again", work=tmp_path / "more", go_on_from=tmp_path / "out", **given)
    second = Settings.load(tmp_path / "more" / "run")
    assert second.steps > first.steps
    assert second.dense_steps == first.dense_steps


@pytest.mark.slow
def test_several_processes_measure_the_same_as_one(finished_run, tmp_path, capsys):
    export(finished_run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25)
    given = {"scenes": 12, "splits": ("seen styles", "examples"), "threshold": 0.1, "dtype": "float32"}
    alone, shared = (evaluate(tmp_path / "checkpoint", **given, processes=n) for n in (1, 2))
    assert alone == shared
    none = evaluate(tmp_path / "checkpoint", **given, seconds=0)
    assert none["splits"] == {}
    assert "lack of time or of a click head: seen styles, examples" in capsys.readouterr().out


def test_the_table_says_which_bars_are_reached():
    good, bad = (Figures(f1=f, precision=f, recall=f, mean_iou=0.9, left_empty=None, prompts=5) for f in (0.95, 0.5))
    lines = table({"shapes and colours": good, "seen styles": bad, "mixed": good}).splitlines()
    assert lines[2].endswith("| 0.94 reached |")
    assert lines[3].endswith("| 0.90 missed |")
    assert lines[4].endswith("|  |")
    assert set(BARS) <= set(SPLITS)


def test_clicks_go_to_the_middle_of_the_widest_mistake():
    true, found = torch.zeros(4, 64, 64, dtype=torch.bool), torch.zeros(4, 64, 64, dtype=torch.bool)
    true[:, 8:40, 8:40] = True
    found[1], found[2] = true[1], true[2]
    found[1, 44:61, 44:61] = True  # too much; of the first nothing was found, the third is right
    found[3] = true[3]
    found[3, 10:18, 10:18], found[3, 44:61, 44:61] = False, True  # too little and, wider, too much
    points, labels = next_click(found, true, 128)
    cells = ((points + 0.5 / 128) * 64).long()
    assert labels.tolist() == [1, 0, 1, 0]
    assert (cells - torch.tensor([24, 52, 24, 52])[:, None]).abs().max() <= 1


@pytest.mark.slow
def test_the_click_head_learns_from_clicks_and_is_exported(tmp_path, vocabulary, atlas):
    start(tmp_path / "run", replace(SETTINGS, clicks=True, batch=8), vocabulary, atlas, None)
    state, settings, tokenizer = resume(tmp_path / "run", vocabulary)
    batch = BatchMaker(settings, vocabulary, atlas, tokenizer)[0]
    masks = clicked_masks(batch)
    x, y = (batch.click_point[:, 0] * masks.shape[-1]).long().T
    there = batch.valid.any(1)
    assert bool(there.any())
    assert bool((masks[torch.arange(8), y, x] > 0)[there].all())
    head = list(state.model.clicks.parameters())
    optimiser, found = torch.optim.Adam(head, 3e-3), []
    for _ in range(40):
        with torch.no_grad():
            tokens = state.model.vision.trunk(normalise(batch.images))
        done = click_losses(click_predictions(state.model.clicks, tokens, batch), batch)
        optimiser.zero_grad()
        done.total.backward()
        optimiser.step()
        found.append(float(done.total.detach()))
    assert found[-1] < 0.8 * found[0]
    assert "iou_after_3_clicks" in losses(state.model, state.heads, batch, dense_only=False).parts
    state.average = {name: tensor.detach().clone() for name, tensor in state.model.state_dict().items()}
    state.save(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "checkpoint", name="mine", version="1", threshold=0.5, dtype=torch.float32)
    predictor = Predictor.from_path(tmp_path / "checkpoint", device="cpu", dtype="float32")
    assert predictor.has_clicks
    (image,) = predictor.encode_images([batch.images[0].permute(1, 2, 0).numpy()])
    point = tuple(batch.click_point[0, 0].tolist())
    (clicked,) = predictor.click(image, [ClickQuery([point], [True])])
    with torch.no_grad():
        tokens = state.model.vision.trunk(normalise(batch.images[:1]))
        one = replace(
            batch, masks=batch.masks[:1], click_thing=batch.click_thing[:1], click_point=batch.click_point[:1]
        )
        best, _ = state.model.clicks.decoder.best(click_predictions(state.model.clicks, tokens, one)[0])
    torch.testing.assert_close(clicked.mask_logits, best, rtol=1e-3, atol=1e-3)
    splits = ("one click", "three clicks")
    figures = evaluate(tmp_path / "checkpoint", scenes=3, splits=splits, threshold=0.5, dtype="float32")["splits"]
    assert set(figures) == set(splits)
    assert all(0 <= f["mean_iou"] <= 1 and f["prompts"] >= 3 for f in figures.values())


def test_masks_of_clicks_count_however_bad_they_are():
    iou = np.array([[0.3]])
    assert Answer("one click", "", np.ones(1), iou).at(0.5).ious == (0.3,)
    assert Answer("one click", "", np.ones(1), iou).at(0.5).matched == 0
    assert Answer("seen styles", "", np.ones(1), iou).at(0.5).ious == ()


def test_an_example_on_another_picture_is_learned_as_it_is_used(new_run, tmp_path, vocabulary, atlas):
    export(new_run, tmp_path / "checkpoint", name="mine", version="1", threshold=0.25, dtype=torch.float32)
    predictor = Predictor.from_path(tmp_path / "checkpoint", device="cpu", dtype="float32")
    predictor.model.geometry.cls.add_(1)
    _, settings, tokenizer = resume(new_run, vocabulary)
    maker = BatchMaker(replace(settings, elsewhere=1.0, boxes=0.0), vocabulary, atlas, tokenizer)
    batches = (maker[step] for step in range(20))
    batch, row = next((b, r) for b in batches for r in (b.shown_image != b.row_image).nonzero()[:, 0].tolist())
    images = predictor.encode_images([image.permute(1, 2, 0).numpy() for image in batch.images])
    here, there = images[int(batch.row_image[row])], images[int(batch.shown_image[row])]
    box = BoxPrompt(tuple(batch.shown_boxes[row, 0].tolist()), positive=True)
    query = Query("visual", examples=predictor.encode_examples(there, [box]))
    (used,) = predictor.predict(here, [query], threshold=0)
    with torch.inference_mode():
        model = predictor.model
        image = model.encode_image(normalise(batch.images))
        for fixed_shapes in (True, False):
            text = model.encode_text(batch.token_ids)
            prompt = step_module.prompt_of_rows(model, image.coarse, text, batch, fixed_shapes=fixed_shapes)
            rows = step_module.features_of_rows(image, batch)
            learned = model.detect(rows, model.encode_prompted(rows, prompt), prompt)
            scores = learned.scores[row].sort(descending=True).values.numpy()
            np.testing.assert_allclose(np.sort(used.scores)[::-1], scores, atol=1e-5)


@pytest.fixture(scope="module")
def partly_asked(tmp_path_factory, vocabulary, atlas):
    """A state and the maker of batches of which a quarter is asked, in a new quarter at each step."""
    run = tmp_path_factory.mktemp("asked") / "run"
    start(run, replace(SETTINGS, batch=8, asked=0.25, views=2, elsewhere=1.0, clicks=True), vocabulary, atlas, None)
    state, settings, tokenizer = resume(run, vocabulary)
    return state, BatchMaker(settings, vocabulary, atlas, tokenizer)


def test_each_step_asks_the_next_share_of_the_images(partly_asked):
    _, maker = partly_asked
    batches = [maker[step] for step in range(4)]
    assert [batch.asked.tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    for batch in batches:
        assert batch.row_image.tolist() == [i for i in batch.asked.tolist() for _ in range(4)]
        other = batch.shown_image != batch.row_image
        assert set(batch.shown_image[other].tolist()) <= set(batch.asked.tolist())  # neighbours ask about each other
    assert any(bool((b.shown_image != b.row_image).any()) for b in (maker[step] for step in range(12)))


def test_images_that_are_not_asked_change_nothing_but_the_dense_losses(partly_asked):
    state, maker = partly_asked
    batch = maker[1]
    others = torch.ones(8, dtype=torch.bool).index_fill(0, batch.asked, value=False)
    changed = {
        name: torch.where(others.view(-1, *[1] * (getattr(batch, name).ndim - 1)), value, getattr(batch, name))
        for name, value in {
            "images": 255 - batch.images,
            "boxes": batch.boxes.flip(-1),
            "masks": 255 - batch.masks,
        }.items()
    }
    found = []
    for given in (batch, replace(batch, **changed)):
        with torch.no_grad():
            found.append(losses(state.model, state.heads, given, dense_only=False, fixed_shapes=True).parts)
    assert {"score", "box_l1", "dice", "semantic", "clicks"} <= set(found[0])
    same = {name for name in found[0] if torch.allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)}
    assert {"score", "presence", "box_l1", "dice", "pixel_codes", "semantic", "clicks"} <= same
    assert "edges" not in same


def test_masks_may_be_compared_on_some_of_the_asked_images_only(partly_asked):
    state, maker = partly_asked
    batch = maker[2]
    others = batch.asked[1:]  # whose masks count for nothing if nothing is asked of them
    hidden = replace(batch, row_targets=batch.row_targets & ~torch.isin(batch.row_image, others)[:, None])
    with torch.no_grad():
        whole, part, alone = (
            losses(state.model, state.heads, given, dense_only=False, mask_share=share, fixed_shapes=True).parts
            for given, share in ((batch, 1.0), (batch, 0.5), (hidden, 1.0))
        )
    assert whole["score"] == part["score"]
    assert whole["dice"] != part["dice"]
    for name in ("dice", "mask_inside", "query_codes", "semantic"):
        torch.testing.assert_close(
            part[name], alone[name], rtol=1e-4, atol=1e-5
        )  # those without an answer count nothing


def test_asking_all_images_of_a_smaller_batch_gives_the_same_detection_losses(partly_asked):
    state, maker = partly_asked
    batch = maker[2]
    small = replace(
        batch.only_asked(), shown_boxes=batch.shown_boxes, shown_labels=batch.shown_labels,
        shown_valid=batch.shown_valid, shown_image=batch.shown_image - int(batch.asked[0]),
    )  # fmt: skip
    with torch.no_grad():
        whole, part = (
            losses(state.model, state.heads, given, dense_only=False, fixed_shapes=True).parts
            for given in (batch, small)
        )
    for name in ("score", "presence", "box_l1", "box_iou", "dice", "semantic", "query_codes", "clicks"):
        torch.testing.assert_close(whole[name], part[name], rtol=1e-4, atol=1e-5)


def test_room_for_fewer_rows_than_there_are_encodes_the_same_examples(ready, monkeypatch):
    state, maker = ready
    batch = maker[1]
    shown = int(batch.shown_valid.any(1).sum())
    assert 0 < shown < len(batch.row_image) - 1
    found = []
    for room in (len(batch.row_image), shown + 1):
        monkeypatch.setattr(step_module, "room_for_examples", lambda rows, room=room: room)
        state.model.zero_grad()
        done = losses(state.model, state.heads, batch, dense_only=False, fixed_shapes=True)
        done.total.backward()
        found.append((done.total.detach(), torch.cat([w.grad.flatten() for w in state.model.geometry.parameters()])))
    torch.testing.assert_close(*(total for total, _ in found), rtol=1e-5, atol=1e-5)
    assert torch.nn.functional.cosine_similarity(*(gradient for _, gradient in found), dim=0) > 0.9999
    assert step_module.room_for_examples(0) == shown + 1  # it was this one that was asked


def test_a_layer_on_very_many_rows_computes_what_other_layers_do(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*s, generator=rng) for s in ((64, 8, 18, 5), (7, 5), (7,)))
    given = [[t.clone().requires_grad_() for t in (x, weight, bias)] for _ in range(2)]
    monkeypatch.setattr(tall, "MOST_ROWS", 1000)
    results = [tall.tall_linear(*given[0]), torch.nn.functional.linear(*given[1])]
    assert "TallLinear" in type(results[0].grad_fn).__name__
    torch.testing.assert_close(*results)
    for result in results:
        result.square().sum().backward()
    for ours, theirs in zip(*given, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)
