"""Random models: transformers' and ours with the same weights, made on the device without any file."""

from __future__ import annotations

import copy
import importlib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tests.sam3.random_models import slow_roi_align, tiny_config, tiny_lite_text_config
from torch import nn

from s3seg.sam3.config import Sam3Config
from s3seg.sam3.decoder import Decoder
from s3seg.sam3.load import LAYOUTS, empty_model, plan_loading
from s3seg.sam3.model import Sam3
from s3seg.sam3.sources import read_source

FAMILIES = {"sam3": "Sam3", "sam3_lite_text": "Sam3LiteText"}
S0_TEXT = {"num_hidden_layers": 6, "max_position_embeddings": 16}  # the smallest published LiteText
_FP32 = ("scoring.", *(f"decoder.{name}" for name in Decoder.FP32))


def peer_config(family: str, *, quick: bool, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a full-size model in the transformers form, or of a tiny one.

    Args:
        family: "sam3" or "sam3_lite_text".
        quick: Whether it is a tiny one.
        changes: Values of the tiny configuration to replace; see `tiny_config` and `tiny_lite_text_config`.
    """
    if not quick:
        return {"model_type": family} if family == "sam3" else {"model_type": family, "text_config": S0_TEXT}
    return tiny_config(**changes) if family == "sam3" else tiny_lite_text_config(**changes)


def random_peer(config: dict[str, Any], device: torch.device, *, seed: int = 0) -> Any:
    """Build transformers' model with random weights on the device: fp32, norms, biases and statistics random too."""
    import transformers

    family = config["model_type"]
    modeling: Any = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    if find_spec("torchvision") is None:  # of which transformers needs one function
        modeling.torchvision = SimpleNamespace(ops=SimpleNamespace(roi_align=_roi_align))
    peer_class = getattr(modeling, f"{FAMILIES[family]}Model")
    settings = getattr(transformers, f"{FAMILIES[family]}Config")(**config)
    torch.manual_seed(seed)
    with torch.inference_mode(False), torch.no_grad():
        with device:
            peer = peer_class(settings)
        peer = peer.to(device).eval().requires_grad_(False)
        generator = torch.Generator(device=device).manual_seed(seed)
        for parameter in peer.parameters():
            spread = 0.2 if parameter.ndim == 1 else 0.7 / max(1, parameter[0].numel()) ** 0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator, device=device), alpha=spread)
        for name, buffer in peer.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.3, 3, generator=generator)
        peer.detr_decoder.reference_points.weight.uniform_(-2, 2, generator=generator)
    return peer


def in_precision(peer: Any, dtype: torch.dtype) -> Any:
    """Copy a transformers model to a precision, as its ``from_pretrained(dtype=...)`` would: RoPE tables stay fp32."""
    with torch.inference_mode(False):
        twin = copy.deepcopy(peer).to(dtype)
        exact = {name: buffer for name, buffer in peer.named_buffers() if "inv_freq" in name}
        for name, buffer in exact.items():
            owner, _, attribute = name.rpartition(".")
            setattr(twin.get_submodule(owner), attribute, buffer.clone())
    return twin


def ours_from(peer: Any, dtype: torch.dtype) -> Sam3:
    """Build our model from the weights of a transformers model, through the loader's tables of names."""
    tensors = peer.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    layout = next(layout for layout in LAYOUTS if layout.contains(shapes))
    model = empty_model(Sam3Config.from_dict(peer.config.to_dict()))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plan = plan_loading(shapes, layout, wanted, path=Path("random weights"))
    state = {
        ours: read_source(source, wanted[ours], tensors.__getitem__)
        .to(torch.float32 if ours.startswith(_FP32) else dtype, copy=True)
        .contiguous()
        for ours, source in plan.items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def parameters_mb(model: nn.Module) -> float:
    """Memory of a model's weights, in MB of 2^20 bytes."""
    return sum(p.nbytes for p in model.parameters()) / 2**20


def _roi_align(features: torch.Tensor, boxes: Any, size: int) -> torch.Tensor:
    pooled = [slow_roi_align(one.float(), box.float(), size) for one, box in zip(features, boxes, strict=True)]
    return torch.cat(pooled).to(features.dtype)
