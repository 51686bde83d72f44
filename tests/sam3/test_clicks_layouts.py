"""The click head is found under its names in every published layout, at full size and in files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3seg.errors import CheckpointError
from s3seg.sam3.config import ClickConfig, Sam3Config
from s3seg.sam3.load import empty_model, load, plan_loading
from s3seg.sam3.reference_layouts import REFERENCE, REFERENCE_31
from s3seg.sam3.sources import required_tensors
from s3seg.sam3.transformers_layouts import TRANSFORMERS
from tests.sam3.convert_layout import to_sam31
from tests.sam3.convert_tracker import to_reference, to_reference_31
from tests.sam3.tracker_oracle import random_video_model, tiny_video_config


@pytest.fixture(scope="module")
def full_size() -> dict[str, torch.Tensor]:
    """All tensors of SAM 3's detector and tracker in transformers, without memory."""
    from transformers.models.sam3_video.configuration_sam3_video import Sam3VideoConfig
    from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoModel

    with torch.device("meta"):
        return Sam3VideoModel(Sam3VideoConfig()).state_dict()


@pytest.fixture(scope="module")
def wanted() -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in empty_model(Sam3Config(clicks=ClickConfig())).state_dict().items()}


@pytest.fixture
def reference_detector(golden) -> dict[str, torch.Tensor]:
    rows = (line.split("\t")[:2] for line in (golden / "keys_reference_full.tsv").read_text().splitlines()[1:])
    return {name: torch.empty([int(n) for n in shape.split(",")], device="meta") for name, shape in rows}


@pytest.mark.parametrize("layout", [TRANSFORMERS, REFERENCE, REFERENCE_31], ids=lambda layout: layout.name)
def test_every_tensor_of_the_full_size_is_found_and_no_other_is_read(layout, full_size, reference_detector, wanted):
    if layout is TRANSFORMERS:
        published = full_size
    elif layout is REFERENCE:
        published = reference_detector | to_reference(full_size)
    else:
        bare = {name.removeprefix("detector."): tensor for name, tensor in reference_detector.items()}
        published = {f"detector.{name}": tensor for name, tensor in to_sam31(bare).items()} | to_reference_31(full_size)
    shapes = {name: tuple(tensor.shape) for name, tensor in published.items()}

    plan = plan_loading(shapes, layout, wanted, path=Path("full"))

    assert layout.contains(shapes)
    assert layout.has_clicks(shapes)
    clicks = {ours: source for ours, source in plan.items() if ours.startswith("clicks.")}
    parts = [part for ours, source in clicks.items() for part in required_tensors(source, wanted[ours])]
    assert len(parts) == len(set(parts)), "no tensor is used twice"
    own = set(layout.own_names(shapes))
    of_head = {name for name in own if name.startswith(layout.click_prefixes) and not layout.is_unused(name)}
    assert set(parts) == of_head
    assert not any("memory" in name or "mem_" in name for name in of_head - {layout.source("clicks.no_memory")})


def test_the_head_has_all_values_of_the_image_part_of_the_tracker(full_size, wanted):
    image_part = ("tracker_neck.", "tracker_model.prompt_encoder.", "tracker_model.mask_decoder.")
    expected = sum(tensor.numel() for name, tensor in full_size.items() if name.startswith(image_part))
    expected += full_size["tracker_model.no_memory_embedding"].numel()
    expected -= sum(tensor.numel() for name, tensor in full_size.items() if "tracker_neck.fpn_layers.3." in name)
    assert sum(math.prod(shape) for name, shape in wanted.items() if name.startswith("clicks.")) == expected


@pytest.fixture(scope="module")
def published(tmp_path_factory, golden) -> tuple[Path, dict[str, torch.Tensor]]:
    """A video model with the detector of the golden files, in transformers' layout, and its tracker's tensors."""
    detector = json.loads((golden / "config.json").read_text())
    vit = detector["vision_config"]["backbone_config"]
    config = tiny_video_config(
        image_size=vit["image_size"],
        patch_size=vit["patch_size"],
        pretrain_image_size=vit["pretrain_image_size"],
        width=vit["hidden_size"],
        channels=detector["vision_config"]["fpn_hidden_size"],
    )
    folder = tmp_path_factory.mktemp("published")
    with torch.inference_mode():
        random_video_model(config, folder)
    tensors = load_file(folder / "model.safetensors")
    return folder, {name: tensor for name, tensor in tensors.items() if name.startswith("tracker")}


@pytest.mark.parametrize("version", ["3", "3.1"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_metas_files_load_to_the_same_head_as_transformers(published, golden, tmp_path, version, suffix):
    folder, tracker = published
    detector = load_file(golden / "reference_tiny.safetensors")
    if version == "3":
        content = {f"detector.{name}": t for name, t in detector.items()} | to_reference(tracker)
        content["tracker.maskmem_backbone.out_proj.weight"] = torch.ones(3)
    else:
        content = {f"detector.{name}": t for name, t in to_sam31(detector).items()} | to_reference_31(tracker)
        content["tracker.model.sam_mask_decoder.iou_token.weight"] = torch.ones(1, 8)  # the tracker of videos
    path = tmp_path / f"sam3{suffix}"
    (tmp_path / "config.json").write_text((golden / "config.json").read_text())
    torch.save({"model": content}, path) if suffix == ".pt" else save_file(content, path)

    expected, found = load(folder).clicks.state_dict(), load(path)

    assert found.clicks.state_dict().keys() == expected.keys()
    for name, tensor in found.clicks.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=0, rtol=0)
    inferred = found.config.clicks
    assert inferred == ClickConfig(heads=4, mlp_width=72, mask_channels=8, iou_width=24)


def test_a_file_without_the_head_loads_without_it(published, tmp_path):
    folder, tracker = published
    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())  # which has a tracker
    save_file({n: t for n, t in tensors.items() if n not in tracker}, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert model.clicks is None
    assert model.config.clicks is None


def test_a_head_with_a_missing_tensor_is_an_error_that_names_it(published, tmp_path):
    folder, _ = published
    tensors = load_file(folder / "model.safetensors")
    del tensors["tracker_model.mask_decoder.conv_s1.bias"]
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing tracker_model\.mask_decoder\.conv_s1\.bias"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["num_hidden_layers", "iou_head_depth"])
def test_a_head_of_another_depth_is_refused(name):
    config = tiny_video_config(tracker={name: 4})
    with pytest.raises(ValueError, match=name):
        Sam3Config.from_dict(config)


def test_in_half_precision_the_encoding_of_positions_stays_fp32(published):
    head = load(published[0], dtype=torch.bfloat16).clicks.state_dict()
    assert {name for name, tensor in head.items() if tensor.dtype == torch.float32} == {"prompts.frequencies"}
