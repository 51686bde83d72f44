"""One view of drawn scenes, made where the network runs: how they are seen, and where in it everything is.

All operations are on whole batches with shapes that never change, and none waits for the device.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from .appearance import finish
from .batch import BACKGROUND, UNCLEAR, Batch, DrawnScenes
from .scenes import SMALLEST_INSTANCE, TRAINING

DEPTH = 7
"""Side of the window, in cells of the masks, by which places well inside a thing are told from its edge."""


@torch.no_grad()
def look(
    scenes: DrawnScenes, view: int, *, seed: int, grid: int, clicked_things: int = 1,
    photographed: float = TRAINING.photographed,
) -> Batch:  # fmt: skip
    """Return a view of some scenes.

    The first view is the scene as it was drawn. The others are mirrored half of the time, nearer or farther, shifted
    and a little askew. Some of each are seen as photographs of a drawing. Tone, blur and noise differ in all.

    Args:
        scenes: The scenes, on the device on which the view is made.
        view: Which one.
        seed: Where the choices come from.
        grid: Patches along a side.
        clicked_things: How many things of each are clicked.
        photographed: Share that looks like a photograph of a drawing.
    """
    device, count = scenes.images.device, len(scenes.images)
    rng = Generator(device).manual_seed(seed)
    photo = torch.rand(count, generator=rng, device=device) < photographed
    matrix = _homographies(photo, view > 0, rng)
    images, ids = _warp(scenes.images.permute(0, 3, 1, 2).float(), scenes.ids, matrix, rng)
    images = finish(images, photo, rng)
    labels, boxes, masks, valid = targets(ids, scenes.attributes.shape[1] - 1, grid)
    matches, unclear = scenes.matches[view], scenes.unclear[view].clone()
    counts = F.pad(valid, (1, 0), value=True)[..., None]
    unclear |= matches & ~counts
    asked = scenes.asked[view]
    row_image, shown_image, shown_thing = (t[view] for t in (scenes.row_image, scenes.shown_image, scenes.shown_thing))
    shown_valid = scenes.shown_valid[view] & valid[shown_image[:, None], shown_thing]
    shown_boxes = _drawn_by_hand(boxes[shown_image[:, None], shown_thing], rng)
    things, points = _clicks(masks, valid, clicked_things, rng)
    return Batch(
        images=images, patch_labels=labels, attributes=scenes.attributes, boxes=boxes, masks=masks, valid=valid,
        token_ids=scenes.token_ids[view], token_valid=scenes.token_valid[view], dense=scenes.dense[view],
        matches=matches & counts, unclear=unclear, asked=asked, row_image=row_image, row_text=scenes.row_text[view],
        row_targets=scenes.row_targets[view] & valid[row_image],
        shown_boxes=torch.where(shown_valid[..., None], shown_boxes, 0.5), shown_image=shown_image,
        shown_labels=scenes.shown_labels[view], shown_valid=shown_valid, click_thing=things, click_point=points,
    )  # fmt: skip


def targets(ids: Tensor, things: int, grid: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Derive what the losses compare with from which thing is visible at each pixel.

    Args:
        ids: uint8 (B, S, S), 0 for none, k for the k-th thing.
        things: N, most things in a scene.
        grid: G, patches along a side.

    Returns:
        Labels of patches, int64 (B, G, G); boxes (B, N, 4), cxcywh in 0..1; coverage, uint8 (B, N, 4 G, 4 G); and which
        things are large enough to count, bool (B, N). Boxes and coverage of all others are 0.
    """
    size, device = ids.shape[-1], ids.device
    each = ids[:, None] == torch.arange(1, things + 1, dtype=torch.uint8, device=device)[:, None, None]  # (B, N, S, S)
    cover = F.avg_pool2d(each.float(), size // (4 * grid))
    area = cover.sum((2, 3)) * (size / (4 * grid)) ** 2
    valid = area >= SMALLEST_INSTANCE * (size / 224) ** 2
    left, right = _extent(each.any(2))
    top, bottom = _extent(each.any(3))
    boxes = torch.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], dim=-1) / size
    by_patch = F.avg_pool2d(cover, 4)  # (B, N, G, G)
    most, which = by_patch.max(1)
    labels = torch.where(most > 0.4, which + 1, UNCLEAR)
    labels = torch.where(1 - by_patch.sum(1) > 0.9, BACKGROUND, labels)
    masks = (cover * valid[..., None, None] * 255).round().to(torch.uint8)
    return labels, boxes * valid[..., None], masks, valid


def _extent(there: Tensor) -> tuple[Tensor, Tensor]:
    """bool (..., S) -> the first place and the one after the last, (...)."""
    size = there.shape[-1]
    place = torch.arange(size, device=there.device)
    first, last = torch.where(there, place, size).amin(-1), torch.where(there, place + 1, 0).amax(-1)
    return first.float(), last.float()


def _homographies(photo: Tensor, moved: bool, rng: Generator) -> Tensor:
    """Return where each view's places are in the drawing, both in -1..1: (B, 3, 3)."""
    device, count = photo.device, len(photo)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=rng, device=device)

    turn = torch.randn(count, generator=rng, device=device) * torch.where(photo, 6.0, 3.0).deg2rad()
    askew = torch.where(photo, 0.09, 0.03)
    zoom = torch.where(photo, uniform(0.84, 1.0), torch.exp(uniform(-0.1, 0.25)))  # above 1: larger than drawn
    mirrored = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if moved else torch.ones_like(zoom)
    stretch_x, stretch_y = (1 + askew * uniform(-1, 1) for _ in range(2))
    shear_x, shear_y = (askew * uniform(-1, 1) for _ in range(2))
    room = (1 - 1 / zoom).abs() + 0.06
    shift_x, shift_y = (room * uniform(-1, 1) for _ in range(2))
    fall_x, fall_y = (askew * uniform(-1, 1) for _ in range(2))
    one, cos, sin = torch.ones_like(zoom), turn.cos() / zoom, turn.sin() / zoom
    rows = (
        mirrored * cos * stretch_x, -sin + shear_x, shift_x, mirrored * sin + shear_y, cos * stretch_y, shift_y,
        fall_x, fall_y, one,
    )  # fmt: skip
    matrix = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    plain = torch.eye(3, device=device).expand(count, 3, 3)
    return matrix if moved else torch.where(photo[:, None, None], matrix, plain)


def _warp(images: Tensor, ids: Tensor, matrix: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Take images (B, 3, S, S) and ids (B, S, S) from where a matrix says; around them is a colour of chance."""
    size, device = ids.shape[-1], ids.device
    place = (torch.arange(size, device=device) * 2 + 1) / size - 1
    y, x = torch.meshgrid(place, place, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1)  # (S * S, 3)
    there = (points[None, :, :, None] * matrix.mT[:, None]).sum(2)  # not a matrix product, which could be in TF32
    there = (there[..., :2] / there[..., 2:]).unflatten(1, (size, size))
    table = 20 + 215 * torch.rand(len(ids), 1, generator=rng, device=device)
    table = (table + 60 * torch.rand(len(ids), 3, generator=rng, device=device) - 30).clamp(0, 255)
    outside = (there.abs() > 1).any(-1)
    seen = F.grid_sample(images, there, mode="bilinear", padding_mode="border", align_corners=False)
    seen = torch.where(outside[:, None], table[..., None, None], seen)
    which = F.grid_sample(ids[:, None].float(), there, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0]
    return seen, torch.where(outside, 0, which).to(torch.uint8)


def _drawn_by_hand(boxes: Tensor, rng: Generator) -> Tensor:
    """Move the edges of boxes (..., 4), cxcywh, by a few percent of their size."""
    by = 0.04 * torch.randn(boxes.shape, generator=rng, device=boxes.device)
    return (boxes + by * boxes[..., 2:].repeat(*[1] * (boxes.ndim - 1), 2)).clamp(0.01, 0.99)


def _clicks(masks: Tensor, valid: Tensor, count: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Choose some valid things of each image, and a point on each (x, y) in 0..1: mostly well inside, as people click.

    Where there are fewer things, some of those that are chosen are not valid.
    """
    device, (images, _, side, _) = masks.device, masks.shape
    thing = (valid * (torch.rand(valid.shape, generator=rng, device=device) + 0.01)).topk(count).indices  # (B, K)
    cover = masks[torch.arange(images, device=device)[:, None], thing].float() / 255  # (B, K, side, side)
    inside = cover >= cover.amax((-2, -1), keepdim=True).clamp(max=0.5)
    depth = F.avg_pool2d(inside.float(), DEPTH, stride=1, padding=DEPTH // 2) * inside
    least = depth.amax((-2, -1)) * torch.rand((images, count), generator=rng, device=device)
    chance = torch.rand(depth.shape, generator=rng, device=device) + 0.01
    place = (chance * (inside & (depth >= least[..., None, None]))).flatten(2).argmax(2)
    point = torch.stack([(place % side + 0.5) / side, (place // side + 0.5) / side], dim=-1)
    return thing, torch.where(valid.gather(1, thing)[..., None], point, 0.5)
