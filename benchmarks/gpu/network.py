"""Full SAM 3 with random weights as a network that services and measurements can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.gpu.models import ours_from, peer_config, random_peer
from benchmarks.held_network import eight_ellipses
from s3seg import checkpoints
from s3seg.inference.stages import EncodedImage, Sam3Network
from s3seg.results.segmentation import ModelInfo
from s3seg.sam3.device import prepare
from s3seg.sam3.predictor import Detections, Predictor, Query
from s3seg.sam3.tokenizer import Tokenizer

INSTANCES = 8


class RandomNetwork(Sam3Network):
    """Computes everything that full SAM 3 computes, and answers with eight ellipses.

    Masks of random weights are noise, which takes ten times as long to turn into an RLE as the outline of a thing. So
    the best eight instances of each prompt are computed and copied to the CPU, and then replaced.
    """

    def __init__(self, *, device: torch.device, dtype: torch.dtype, quick: bool) -> None:
        """Make the weights on the device; ``quick`` makes a tiny network instead."""
        embedded = checkpoints.resolve("embedded")
        super().__init__(embedded, device="cpu")  # words are tokenized as for it
        prepare(device, dtype)  # as loading a checkpoint does
        peer = random_peer(peer_config("sam3", quick=quick, vocab_size=4000), device)
        model = ours_from(peer, dtype)
        del peer
        tokenizer = Tokenizer.from_folder(embedded.folder, context=model.config.text.context)
        self.predictor = Predictor(model, tokenizer)
        self.model = ModelInfo("random", "1", str(device), str(dtype).removeprefix("torch."))
        self._shown = eight_ellipses()

    def predict(self, pairs: Sequence[tuple[EncodedImage, str | Query]]) -> list[Detections]:
        """Compute eight instances of each prompt, and answer with eight ellipses."""
        queries = [(image, Query(prompt) if isinstance(prompt, str) else prompt) for image, prompt in pairs]
        computed = self.predict_queries(queries, threshold=-1.0, max_instances=INSTANCES)
        return [replace(self._shown, presence=one.presence) for one in computed]
