"""The light text encoder of SAM3-LiteText: a MobileCLIP text transformer, projected to the width of the detector.

Architecture: SAM3-LiteText (Zeng et al., 2026) distills SAM 3's text encoder into the text encoders of MobileCLIP (Vasu
et al., 2024). Of the published sizes, S0 starts and ends with a RepMixer block; S1 and L have transformer layers only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3seg.sam3.config import LiteTextConfig
from s3seg.sam3.text import TextEncoder, TextLayer

_BATCH_NORM_EPS = 1e-5


class LiteTextEncoder(TextEncoder):
    """The light text encoder.

    Attention is bidirectional and the convolutions mix neighboring tokens, so the padding takes part. As in the
    reference implementation, with which the published weights were trained, every text is padded with 0 to the
    context length, and the padding is not masked. The transformers port masks it in the attention layers (not in the
    convolutions), and its processor pads to 32 tokens, for which it stretches the position embedding.
    """

    def __init__(self, config: LiteTextConfig, channels: int) -> None:
        super().__init__()
        self.context = config.context
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Parameter(torch.zeros(config.context, config.width))
        self.layers = nn.ModuleList(
            RepMixerBlock(config)
            if i in config.repmixer_layers
            else TextLayer(config.width, config.heads, config.mlp_width, config.norm_eps, causal=False)
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.project = nn.Linear(config.width, channels)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Token ids, int64 (P, T) -> (P, T, channels); see `TextEncoder.forward`."""
        length = token_ids.shape[1]
        if length > self.context:
            raise ValueError(f"a text of {length} tokens is longer than the context of {self.context}")
        x = self.token_embedding(F.pad(token_ids, (0, self.context - length))) + self.position_embedding
        for layer in self.layers:
            x = layer(x)
        return self.project(self.norm(x[:, :length]))


class RepMixerBlock(nn.Module):
    """A RepMixer block in its inference form: depthwise convolutions along the text, and an MLP.

    A block is trained with several branches (a convolution and skip connections, each with a batch norm, and layer
    scales). All of them are linear, so each group of branches equals one convolution or linear layer. The weights of
    these are computed when a checkpoint is loaded, with the functions below.
    """

    def __init__(self, config: LiteTextConfig) -> None:
        super().__init__()
        width, kernel = config.width, config.repmixer_kernel
        self.token_mixer = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.expand = nn.Linear(width, config.mlp_width)
        self.reduce = nn.Linear(config.mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (P, T, width) -> (P, T, width)."""
        mixed = self.token_mixer(x.transpose(1, 2))  # (P, width, T); contains the skip connection
        update = self.reduce(F.gelu(self.expand(self.depthwise(mixed).transpose(1, 2))))
        return mixed.transpose(1, 2) + update


BatchNorm = tuple[Tensor, Tensor, Tensor, Tensor]
"""Weight, bias, running mean and running variance of a batch norm, each (width,)."""


def fuse_token_mixer(scale: Tensor, conv: Tensor, norm: BatchNorm, skip: BatchNorm, reference: BatchNorm) -> Tensor:
    """Fuse ``x + scale * (norm(conv(x)) + skip(x) - reference(x))`` into the weight of one convolution.

    Args:
        scale: Layer scale, (width, 1, 1).
        conv: Weight of the depthwise convolution, (width, 1, 1, kernel).
        norm: Batch norm after the convolution.
        skip: Batch norm of the skip branch.
        reference: Batch norm of the branch that is subtracted.

    Returns:
        (width, 1, kernel)
    """
    scale, conv = scale.flatten(), conv[:, :, 0]
    weight = conv * (scale * _affine(norm)[0])[:, None, None]
    center = 1 + scale * (_affine(skip)[0] - _affine(reference)[0])
    weight[:, 0, weight.shape[-1] // 2] += center
    return weight


def fuse_token_mixer_bias(scale: Tensor, norm: BatchNorm, skip: BatchNorm, reference: BatchNorm) -> Tensor:
    """The bias (width,) that goes with `fuse_token_mixer`."""
    return scale.flatten() * (_affine(norm)[1] + _affine(skip)[1] - _affine(reference)[1])


def fuse_depthwise(conv: Tensor, norm: BatchNorm) -> Tensor:
    """Fuse a depthwise convolution (width, 1, 1, kernel) and the batch norm after it -> (width, 1, kernel)."""
    return conv[:, :, 0] * _affine(norm)[0][:, None, None]


def fuse_depthwise_bias(norm: BatchNorm) -> Tensor:
    """The bias (width,) that goes with `fuse_depthwise`."""
    return _affine(norm)[1]


def _affine(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as scale and shift, each (width,)."""
    weight, bias, mean, variance = norm
    scale = weight / (variance + _BATCH_NORM_EPS).sqrt()
    return scale, bias - mean * scale
