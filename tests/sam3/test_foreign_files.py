"""A file that is not a SAM 3 checkpoint is an error that says what it is and what to do."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3seg.errors import CheckpointError
from s3seg.sam3.config import Sam3Config
from s3seg.sam3.foreign_files import describe_content
from s3seg.sam3.load import load

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3439938512\n"
PAGES = [
    b"<!DOCTYPE html><html><head><title>Sign in</title>",
    b"\n\n<html lang='en'>",
    b"\xef\xbb\xbf<!doctype html>",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
]


@pytest.fixture(params=["model.safetensors", "sam3.pt", "model-00001-of-00001.safetensors"])
def file(request, tmp_path) -> Path:
    """Where weights should be: a file of either kind, or a shard."""
    if "-of-" in request.param:
        index = {"weight_map": {"detr_decoder.presence_token.weight": request.param}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path / request.param


def test_a_git_lfs_pointer(file):
    file.write_bytes(POINTER)
    message = _refusal(file.parent, file)
    assert "is a git-lfs pointer" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("content", PAGES)
def test_a_web_page(file, content):
    file.write_bytes(content)
    message = _refusal(file.parent, file)
    assert "is a web page" in message
    assert "s3seg models pull" in message


def test_a_json_text_is_quoted(file):
    file.write_bytes(b'{"error": "Access to model facebook/sam3 is restricted"}')
    message = _refusal(file.parent, file)
    assert 'is a JSON text, not the weights: {"error": "Access to model facebook/sam3 is restricted"}' in message


@pytest.mark.parametrize("length", [0x7B, 0x7B20, 0x3C20, 0x0A, 0x20])
def test_a_safetensors_file_is_not_taken_for_a_text_whatever_the_length_of_its_header(tmp_path, length):
    start = length.to_bytes(8, "little") + b'{"weight":{"dtype":"F32"'
    (tmp_path / "model.safetensors").write_bytes(start)
    assert describe_content(tmp_path / "model.safetensors") is None


def test_a_yolo_checkpoint(tmp_path, monkeypatch):
    module = types.ModuleType("ultralytics.nn.tasks")
    module.SegmentationModel = type("SegmentationModel", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "ultralytics", types.ModuleType("ultralytics"))
    monkeypatch.setitem(sys.modules, "ultralytics.nn", types.ModuleType("ultralytics.nn"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"epoch": -1, "model": module.SegmentationModel()}, tmp_path / "yolo11n-seg.pt")

    message = _refusal(tmp_path, tmp_path / "yolo11n-seg.pt")

    assert "is an Ultralytics model such as YOLO (ultralytics.nn.tasks.SegmentationModel), not a SAM 3" in message


def test_other_python_objects_in_a_pt_file_are_named(tmp_path):
    torch.save({"config": Path("/etc")}, tmp_path / "sam3.pt")
    message = _refusal(tmp_path, tmp_path / "sam3.pt")
    assert "holds Python objects (pathlib." in message
    assert "save its state_dict as .safetensors instead" in message


class TestDistilledModels:
    @pytest.fixture
    def reference(self, golden) -> dict[str, torch.Tensor]:
        return load_file(golden / "reference_tiny.safetensors")

    @pytest.mark.parametrize("prefix", ["", "detector."])
    def test_a_light_text_encoder_in_its_training_layout(self, reference, tmp_path, prefix):
        language = "backbone.language_backbone."
        tensors = {name: tensor for name, tensor in reference.items() if not name.startswith(language)}
        tensors[f"{language}encoder.embedding_layer.weight"] = torch.zeros(300, 8)
        tensors[f"{language}encoder.positional_embedding.pos_embed.pos_embed"] = torch.zeros(1, 1, 16, 8)
        torch.save({"model": {prefix + name: t for name, t in tensors.items()}}, tmp_path / "sam3_litetext.pt")
        message = _refusal(tmp_path, tmp_path / "sam3_litetext.pt")
        assert "SAM3-LiteText checkpoint in the layout of its training code" in message
        assert "vil-uob/sam3-litetext-s0" in message

    def test_another_image_encoder(self, reference, tmp_path):
        trunk = "backbone.vision_backbone.trunk."
        tensors = {name: tensor for name, tensor in reference.items() if not name.startswith(trunk)}
        tensors[f"{trunk}model.backbone.stages.0.weight"] = torch.zeros(2)
        torch.save(tensors, tmp_path / "efficient_sam3_tinyvit_m.pt")
        message = _refusal(tmp_path, tmp_path / "efficient_sam3_tinyvit_m.pt")
        assert "has a different image encoder from SAM 3's" in message
        assert "trunk.model.backbone.stages.0.weight" in message

    def test_a_missing_part_of_sam_3_itself_is_still_listed_as_missing(self, reference, golden, tmp_path):
        del reference["backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight"]
        shutil.copy(golden / "config.json", tmp_path)
        save_file(reference, tmp_path / "model.safetensors")
        message = _refusal(tmp_path, tmp_path / "model.safetensors")
        assert "missing backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight" in message

    @pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
    @pytest.mark.parametrize("suffix", ["safetensors", "pt"])
    def test_quantized_weights(self, reference, golden, tmp_path, dtype, suffix):
        name = "transformer.encoder.layers.0.linear1.weight"
        reference[name] = reference[name].to(dtype)
        path = tmp_path / f"sam3.{suffix}"
        save_file(reference, path) if suffix == "safetensors" else torch.save(reference, path)
        message = _refusal(path, path)
        assert "holds quantized weights" in message
        assert "fp32, fp16 and bf16" in message


@pytest.mark.parametrize(
    ("model_type", "what"),
    [
        ("sam3_tracker", "tracker by itself, which takes clicks and no text"),
        ("sam3_tracker_video", "tracker by itself, which takes clicks and no text"),
        ("sam3_vit_model", "does not implement"),
        ("sam3_lite_text_text_model", "does not implement"),
        ("sam3_9_huge", "does not implement"),
        ("sam2", "is another model"),
    ],
)
def test_a_configuration_of_another_model(tmp_path, model_type, what):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(CheckpointError) as caught:
        Sam3Config.from_file(tmp_path / "config.json")
    message = str(caught.value)
    assert f"model_type {model_type!r}" in message
    assert what in message
    assert "whose model_type is sam3, sam3_video or sam3_lite_text" in message


def _refusal(path: Path, file: Path) -> str:
    """The message with which loading is refused; it must start with the file."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value).startswith(str(file))
    return str(caught.value)
