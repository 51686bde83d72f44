"""Measurements of transformers: the same network, eager, in the same precision."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.gpu.context import Context
from benchmarks.gpu.models import in_precision, parameters_mb, peer_config, random_peer
from benchmarks.gpu.network import INSTANCES
from benchmarks.gpu.pictures import make_jpeg
from benchmarks.gpu.rates import IMAGE_TMAC, PROMPT_TMAC, Rates, Times
from benchmarks.gpu.report import Step
from benchmarks.gpu.timing import free
from s3seg import images
from s3seg.sam3.resize import normalise, resize

THEIRS = "transformers"


class Theirs:
    """Measurements of transformers, with PyTorch's own choice of attention kernels, as its users run it."""

    def __init__(self, context: Context, dtype: torch.dtype, rates: Rates) -> None:
        self._context, self._dtype = context, dtype
        self._times = Times(context, rates, THEIRS)
        self.model: Any = None

    def steps(self) -> Iterable[Step]:
        """All of them; the first makes the network that the others use."""
        yield Step("transformers, weights", self._load, 10)
        yield Step("transformers, pixels to masks", self._whole, 8)
        for batch in (1, 8):
            yield Step(f"transformers, {batch} images", partial(self._encode, batch), 2 + batch / 2)
        yield Step("transformers, prompts", self._prompt, 3)

    def _load(self) -> None:
        torch.backends.cuda.enable_cudnn_sdp(True)  # PyTorch's default, which our network changes
        device, quick = self._context.device, self._context.quick
        exact = random_peer(peer_config("sam3", quick=quick, vocab_size=4000), device)
        self.model = in_precision(exact, self._dtype)
        del exact
        free(device)
        self._context.report.add("Weights", program="transformers", mb=parameters_mb(self.model))

    @property
    def _side(self) -> int:
        return self.model.config.vision_config.backbone_config.image_size

    def _random_pixels(self, batch: int) -> torch.Tensor:
        side = self._side
        return torch.rand(batch, 3, side, side, device=self._context.device).mul(2).sub(1).to(self._dtype)

    def _encode(self, batch: int) -> None:
        pixels = self._random_pixels(batch)
        self._times.add(
            f"image, batch {batch}",
            lambda: self.model.get_vision_features(pixel_values=pixels),
            tmac=batch * IMAGE_TMAC,
            each=batch,
        )

    def _prompt(self) -> None:
        words = _words(self._context.device)
        vision = self.model.get_vision_features(pixel_values=self._random_pixels(1))
        self._times.add("1 prompt", lambda: self.model(vision_embeds=vision, **words), tmac=PROMPT_TMAC)

    def _whole(self) -> None:
        device = self._context.device
        words = _words(device)
        pixels = images.load(make_jpeg(quick=self._context.quick)).pixels
        for prompts, name in ((1, "1 prompt"), (8, "8 prompts")):
            self._times.add(
                f"pixels to masks, {name}",
                partial(self._segment, pixels, words, prompts),
                tmac=prompts * (IMAGE_TMAC + PROMPT_TMAC),
            )

    def _segment(self, pixels: np.ndarray, words: dict[str, torch.Tensor], prompts: int) -> None:
        """Each prompt with the whole network, as its documentation shows.

        Resizing is ours, and it ends with boolean masks where ours goes on to RLE: both are in its favour.
        """
        for _ in range(prompts):
            given = normalise(resize(pixels, self._side).to(self._context.device)).to(self._dtype)
            said = self.model(pixel_values=given, **words)
            scores = said.pred_logits.sigmoid() * said.presence_logits.sigmoid()
            best = scores[0].topk(min(INSTANCES, scores.shape[1])).indices
            chosen = said.pred_masks[:, best].float()
            F.interpolate(chosen, size=pixels.shape[:2], mode="bilinear").gt(0).cpu()


def _words(device: torch.device) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[3998, 7, 3999]], device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
