"""An auto-annotation function for CVAT: masks or polygons for the labels of a task, found by their names.

    cvat-cli task auto-annotate TASK --function-module s3seg.integrations.cvat -p labels=str:tree,cloud

Needs the package ``cvat-sdk``, which is installed with ``cvat-cli``.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask

from s3seg.errors import InvalidRequestError
from s3seg.results import masks
from s3seg.results.polygons import joined_rings
from s3seg.results.segmentation import Instance

if TYPE_CHECKING:
    import PIL.Image
    from cvat_sdk import models

    from s3seg.client import Client
    from s3seg.inference.segmenter import Segmenter


class CvatFunction:
    """A detection function, as ``cvat_sdk.auto_annotation`` calls them.

    Attributes:
        spec: The labels, and the type of their shapes.
    """

    def __init__(self, model: Segmenter | Client, prompts: Mapping[str, str], *, shape: str = "mask") -> None:
        """Make a function.

        Args:
            model: Segments the pictures: on this machine, or on an s3seg service.
            prompts: What to look for, for each label of CVAT.
            shape: "mask" or "polygon". CVAT may ask a function with masks for polygons.

        Raises:
            InvalidRequestError: There is no label, or the shape is neither.
        """
        if not prompts:
            raise InvalidRequestError("there is no label; name those of the task, such as labels=str:tree,cloud")
        if shape not in ("mask", "polygon"):
            raise InvalidRequestError(f"shape must be 'mask' or 'polygon', got {shape!r:.60}")
        self._model = model
        self._prompts = list(prompts.values())
        self._shape = shape
        labels = [cvataa.label_spec(name, number, type=shape) for number, name in enumerate(prompts)]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """Find every instance of every label.

        Args:
            context: The threshold (the model's own if there is none), and whether masks shall be polygons.
            image: The picture.

        Raises:
            S3segError: The picture cannot be segmented.
        """
        results = self._model.segment(image, self._prompts, threshold=context.conf_threshold)
        as_polygons = self._shape == "polygon" or context.conv_mask_to_poly
        return [
            shape
            for label, result in enumerate(results)
            for instance in result
            if instance.area
            for shape in (_polygons(label, instance) if as_polygons else [_mask(label, instance)])
        ]


def create(
    labels: str,
    *,
    shape: str = "mask",
    checkpoint: str = "",
    device: str = "auto",
    dtype: str = "auto",
    url: str = "",
) -> CvatFunction:
    """Make the function from the parameters of CVAT's command line (``-p name=type:value``).

    Args:
        labels: The labels of the task, separated by commas. A label that is not a good prompt by itself is written with
            one: ``tree,vehicle=red car``.
        shape: "mask" or "polygon".
        checkpoint: As for `Segmenter`; empty for the best that is on this machine.
        device: As for `Segmenter`.
        dtype: As for `Segmenter`.
        url: Segment on this s3seg service, with the token in ``S3SEG_TOKEN``, instead of this machine.

    Raises:
        S3segError: The labels cannot be used, or the model cannot be loaded.
    """
    prompts = parse_labels(labels)
    model: Segmenter | Client
    if url:
        from s3seg.client import Client

        model = Client(url)
    else:
        from s3seg.inference.segmenter import Segmenter

        model = Segmenter(checkpoint or None, device=device, dtype=dtype)
    return CvatFunction(model, prompts, shape=shape)


def parse_labels(text: str) -> dict[str, str]:
    """Return the prompt of each label.

    Args:
        text: Labels, separated by commas; each may be followed by ``=`` and its prompt.

    Raises:
        InvalidRequestError: A label or a prompt is empty, or a label is there twice.
    """
    prompts: dict[str, str] = {}
    for part in text.split(","):
        label, equals, prompt = (word.strip() for word in part.partition("="))
        if not label or (equals and not prompt):
            raise InvalidRequestError(
                f"labels must be names with commas between them, such as tree,vehicle=red car; got {text!r:.80}"
            )
        if label in prompts:
            raise InvalidRequestError(f"the label {label!r:.60} is given twice; give each label once")
        prompts[label] = prompt or label
    return prompts


def _mask(label: int, instance: Instance) -> models.LabeledShapeRequest:
    return cvataa.mask(label, encode_mask(instance.mask, masks.box(instance.rle)))


def _polygons(label: int, instance: Instance) -> Sequence[models.LabeledShapeRequest]:
    """Return a polygon for each part of the mask; holes are cut in over a bridge, because CVAT's polygons have none."""
    return [
        cvataa.polygon(label, joined_rings(polygon).astype(float).ravel().tolist()) for polygon in instance.polygons()
    ]
