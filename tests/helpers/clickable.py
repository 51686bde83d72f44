"""Two copies of the embedded checkpoint: one with another click head, of random weights, and one without a head."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from s3seg import checkpoints
from s3seg.sam3.config import ClickConfig, Sam3Config
from s3seg.sam3.model import Sam3
from s3seg.sam3.transformers_layouts import TRANSFORMERS

HEAD = {"num_attention_heads": 4, "mlp_dim": 64, "iou_head_hidden_dim": 32}


def write_clickable_checkpoint(folder: Path) -> Path:
    """Write the embedded checkpoint with a random click head into a folder, and return the folder."""
    embedded = checkpoints.resolve("embedded").folder
    shutil.copytree(embedded, folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["tracker_config"] = {"mask_decoder_config": HEAD}
    raw["s3seg"]["name"] = "clickable"
    (folder / "config.json").write_text(json.dumps(raw))
    config = dataclasses.replace(Sam3Config.from_dict(raw), clicks=ClickConfig(heads=4, mlp_width=64, iou_width=32))
    torch.manual_seed(0)
    head = Sam3(config).clicks
    assert head is not None
    generator = torch.Generator().manual_seed(0)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in head.state_dict().items():
        source = TRANSFORMERS.source(f"clicks.{name}")
        assert isinstance(source, str)
        tensors[source] = tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_checkpoint_without_clicks(folder: Path) -> Path:
    """Write the embedded checkpoint without its click head into a folder, and return the folder."""
    shutil.copytree(checkpoints.resolve("embedded").folder, folder)
    raw = json.loads((folder / "config.json").read_text())
    del raw["tracker_config"]
    raw["s3seg"]["name"] = "headless"
    (folder / "config.json").write_text(json.dumps(raw))
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRANSFORMERS.click_prefixes)}
    assert TRANSFORMERS.has_clicks(tensors)
    assert not TRANSFORMERS.has_clicks(kept)
    save_file(kept, folder / "model.safetensors")
    return folder
