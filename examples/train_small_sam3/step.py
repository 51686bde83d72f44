"""One step of learning: all losses of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from s3seg.sam3.decoder import Decoder
from s3seg.sam3.model import BoxPrompts, ImageFeatures, Prompt, Sam3

from .batch import Batch, normalise
from .click_losses import click_losses, click_predictions
from .dense_losses import AuxiliaryHeads, Losses, dense_losses
from .detection_losses import detection_losses
from .mask_losses import mask_embeddings, mask_losses
from .settings import CLICKS_ONLY, EVERYTHING
from .tall import tall


def losses(
    model: Sam3, heads: AuxiliaryHeads, batch: Batch, *, dense_only: bool, precision: str = "fp32",
    trained_part: str = EVERYTHING, mask_share: float = 1.0, fixed_shapes: bool | None = None,
    of_patches: Callable[..., Losses] = dense_losses, of_masks: Callable[..., Losses] = mask_losses,
) -> Losses:  # fmt: skip
    """Run the network on a batch and compare it with the truth.

    Args:
        model: The network.
        heads: The heads that only training needs.
        batch: The truth.
        dense_only: Whether to leave out queries and masks.
        precision: With "bf16", matrix products run in bf16; losses stay fp32, and so do scores, boxes and presence
            within `kept_in_fp32`.
        trained_part: One of `settings.TRAINED_PARTS`.
        mask_share: Share of the asked images whose masks are compared.
        fixed_shapes: Whether all tensors have the shapes that they have in every other batch, and nothing waits for the
            device. If not, what counts for nothing is not computed. None: on a GPU, not on a CPU.
        of_patches: `dense_losses`, or the same compiled.
        of_masks: `mask_losses`, or the same compiled.
    """
    device = batch.images.device.type
    fixed_shapes = device != "cpu" if fixed_shapes is None else fixed_shapes
    batch = batch if fixed_shapes else batch.trimmed()
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
    if trained_part == CLICKS_ONLY:
        return _click_losses_alone(model, batch, autocast)
    with autocast:
        tokens = model.vision.trunk(normalise(batch.images))  # (B, G, G, width)
        coarse = _coarsest(model, tokens)
        text = model.encode_text(batch.token_ids)
        if not dense_only:
            asked, asked_tokens, asked_coarse = batch.only_asked(), tokens, coarse
            if asked is not batch:
                asked_tokens, asked_coarse = tokens[batch.asked], coarse[batch.asked]
            with_masks = max(1, round(mask_share * len(asked_tokens)))
            image = model.features((*_finer(model, asked_tokens[:with_masks]), asked_coarse))
            rows = features_of_rows(image, asked)
            prompt = prompt_of_rows(model, coarse, text, batch, fixed_shapes=fixed_shapes)
            encoded = model.encode_prompted(rows, prompt)
            found = model.detect_all(rows, encoded, prompt)
            clicks = model.clicks if trained_part == EVERYTHING else None
            clicked = click_predictions(clicks, asked_tokens, asked) if clicks is not None else []
    dense = of_patches(heads, tokens.float(), coarse.float(), text.float(), batch)
    if dense_only:
        return dense
    detection, pairs = detection_losses(found, asked, greedy=fixed_shapes)
    with autocast:
        masks = mask_embeddings(model, image, encoded, prompt, found, pairs, asked, fixed_shapes=fixed_shapes)
    masks = of_masks(heads, masks, asked.first_images(with_masks))
    parts = [dense, detection, masks, *([click_losses(clicked, asked)] if clicked else [])]
    return Losses(sum(part.total for part in parts), {k: v for part in parts for k, v in part.parts.items()})


def _click_losses_alone(model: Sam3, batch: Batch, autocast: torch.autocast) -> Losses:
    """Compute the losses of the click head on all images, with the image encoder frozen."""
    with torch.no_grad(), autocast:
        tokens = model.vision.trunk(normalise(batch.images))
    with autocast:
        clicked = click_predictions(model.clicks, tokens, batch)
    return click_losses(clicked, batch)


@contextmanager
def kept_in_fp32(model: Sam3) -> Iterator[None]:
    """Keep scores, presence, boxes and their position codes in fp32 where the rest of the network runs in bf16."""
    names = [name for name in Decoder.FP32 if isinstance(getattr(model.decoder, name), nn.Module)]
    modules = [model.scoring, *(getattr(model.decoder, name) for name in names)]

    def in_fp32(forward: Callable) -> Callable:
        def run(*inputs: Tensor) -> Tensor:
            with torch.autocast(inputs[0].device.type, enabled=False):
                return forward(*(x.float() if x.is_floating_point() else x for x in inputs))

        return run

    for module in modules:
        module.forward = in_fp32(module.forward)
    try:
        with tall([model.decoder.bias_x, model.decoder.bias_y]):
            yield
    finally:
        for module in modules:
            del module.forward  # the class's own is seen again


def _coarsest(model: Sam3, tokens: Tensor) -> Tensor:
    """Compute the last of the neck's maps, (B, C, G, G): the dense losses and the detector need no other."""
    neck = model.vision.neck
    return neck.smooth[-1](neck.project[-1](tokens.permute(0, 3, 1, 2)))


def _finer(model: Sam3, tokens: Tensor) -> tuple[Tensor, ...]:
    """Compute the neck's other maps, (B, C, 4 G, 4 G) and (B, C, 2 G, 2 G), which only masks need."""
    return model.vision.neck(tokens)[:-1]


def features_of_rows(image: ImageFeatures, batch: Batch) -> ImageFeatures:
    """Copy the tokens of the asked images, once for each of their rows.

    `coarse` stays as it is, since only its size counts here.
    The rows of an image follow each other: so the gradient is a plain sum, which is quicker than that of an index.
    """
    prompts = len(batch.row_image) // len(batch.asked)
    return ImageFeatures(image.coarse, image.tokens[:, None].expand(-1, prompts, -1, -1).flatten(0, 1), ())


def room_for_examples(rows: int) -> int:
    """Return how many rows, at most, boxes are encoded for where shapes are fixed: all, if they are few.

    Of many rows about a sixth are shown boxes, so that three eighths are never exceeded in practice; if they were, some
    rows would miss theirs.
    """
    return rows if rows <= 256 else rows * 3 // 8


def prompt_of_rows(model: Sam3, coarse: Tensor, text: Tensor, batch: Batch, *, fixed_shapes: bool) -> Prompt:
    """Join each row's text with the boxes that are shown, on its own image or on another one.

    A row without boxes has no CLS token either, nor has one whose boxes are on another image: it would say that the
    thing is there.

    Args:
        model: The network.
        coarse: (B, C, G, G), the neck's coarsest map of all images.
        text: (T, L, C), encoded texts.
        batch: The truth.
        fixed_shapes: As for `losses`.
    """
    said, valid = text[batch.row_text], batch.token_valid[batch.row_text]
    shown, room = batch.shown_valid.any(1), room_for_examples(len(said))
    if fixed_shapes and room == len(said):
        tokens, shown_valid = _examples(model, coarse, batch, slice(None))
        return Prompt(torch.cat([said, tokens], dim=1), torch.cat([valid, shown_valid], dim=1))
    shown = shown.float().topk(room).indices if fixed_shapes else shown.nonzero()[:, 0]
    if not len(shown):
        return Prompt(said, valid)
    tokens, shown_valid = _examples(model, coarse, batch, shown)
    padding = said.new_zeros(len(said), *tokens.shape[1:]).index_copy(0, shown, tokens.to(said.dtype))
    padding_valid = valid.new_zeros(len(said), tokens.shape[1]).index_copy(0, shown, shown_valid)
    return Prompt(torch.cat([said, padding], dim=1), torch.cat([valid, padding_valid], dim=1))


def _examples(model: Sam3, coarse: Tensor, batch: Batch, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
    on = batch.shown_image[rows]
    boxes = BoxPrompts(batch.shown_boxes[rows], batch.shown_labels[rows], batch.shown_valid[rows])
    tokens, _ = model.examples(ImageFeatures(coarse[on], coarse, ()), boxes)  # nothing else of the images is looked at
    cls_valid = boxes.valid.any(1, keepdim=True) & (on == batch.row_image[rows])[:, None]
    return tokens, torch.cat([boxes.valid, cls_valid], dim=1)
