"""What changes a whole picture, for a batch on its device: tone, blur, noise, and the look of a photographed drawing.

The same as `scenes` and `photographed` do to one picture on a CPU, without the traces of JPEG compression.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

REACH = 3
"""Of the blur, in pixels."""


def finish(images: Tensor, photo: Tensor, rng: Generator) -> Tensor:
    """Vary pictures.

    Args:
        images: fp32 (B, 3, S, S), 0..255.
        photo: bool (B,), which look like a photograph of a drawing.
        rng: Where the choices come from.

    Returns:
        uint8 (B, 3, S, S).
    """
    device, (count, _, size, _) = images.device, images.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=rng, device=device)

    toned = (uniform(0, 1, 1, 1, 1) < 0.5) & ~photo[:, None, None, None]
    contrast, brightness = uniform(0.8, 1.15, 1, 1, 1), uniform(-18, 18, 1, 1, 1)
    images = torch.where(toned, (images - 128) * contrast + 128 + brightness, images)
    images = _printed(images, photo & (uniform(0, 1) < 0.6), uniform)
    light = torch.where(photo[:, None, None, None], _light(size, uniform, device), 1.0)
    images = images * light
    blurred = uniform(0, 1) < torch.where(photo, 0.7, 0.15)
    sigma = torch.where(photo, uniform(0.4, 1.1) * size / 224, uniform(0.4, 0.9))
    images = _blur(images, torch.where(blurred, sigma, 0.05))
    noisy = photo | (uniform(0, 1) < 0.3)
    grey = torch.where(photo, uniform(1, 8), 0.0)
    coloured = torch.where(photo, uniform(0, 4), uniform(2, 9)) * noisy
    for strength, channels in ((grey, 1), (coloured, 3)):
        noise = torch.randn(count, channels, size, size, generator=rng, device=device)
        images = images + noise * strength[:, None, None, None]
    return images.clamp(0, 255).round().to(torch.uint8)


def _printed(images: Tensor, chosen: Tensor, uniform) -> Tensor:
    """Print some on paper: less contrast, a warm or cold white."""
    paper = (uniform(205, 255, 1, 1, 1) + uniform(-14, 10, 3, 1, 1)).clamp(0, 255)
    faded = (images.clamp(0, 255) / 255) ** uniform(0.8, 1.15, 1, 1, 1)
    printed = paper * faded * uniform(0.85, 1, 1, 1, 1) + uniform(0, 28, 1, 1, 1)
    return torch.where(chosen[:, None, None, None], printed, images)


def _light(size: int, uniform, device: torch.device) -> Tensor:
    """Return brightness by place and colour, (B, 3, S, S): brighter on one side, sometimes with a soft shadow."""
    place = torch.linspace(-1, 1, size, device=device)
    x, y = place, place[:, None]
    light = 1 + uniform(-0.22, 0.22, 1, 1) * x + uniform(-0.22, 0.22, 1, 1) * y  # (B, S, S)
    angle = uniform(0, 2 * torch.pi, 1, 1)
    across = angle.cos() * x + angle.sin() * y - uniform(-0.6, 0.6, 1, 1)
    shadow = 1 - uniform(0.1, 0.45, 1, 1) * (across * uniform(6, 40, 1, 1)).sigmoid()
    light = torch.where(uniform(0, 1, 1, 1) < 0.4, light * shadow, light) * uniform(0.8, 1.1, 1, 1)
    return light[:, None] * uniform(0.93, 1.07, 3, 1, 1)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (B, 3, S, S) by its own sigma (B,), in pixels."""
    place = torch.arange(-REACH, REACH + 1, device=images.device)
    weights = torch.exp(-0.5 * (place / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]  # (B, taps, 1, 1, 1)
    size = images.shape[-1]
    for axis in (2, 3):
        wide = F.pad(images, (REACH, REACH, 0, 0) if axis == 3 else (0, 0, REACH, REACH), mode="reflect")
        images = weights[:, 0] * wide.narrow(axis, 0, size)
        for tap in range(1, 2 * REACH + 1):
            images = torch.addcmul(images, weights[:, tap], wide.narrow(axis, tap, size))
    return images
