"""The result of segmenting one picture with one prompt: `Segmentation`, a sequence of `Instance`.

A result holds columns (masks as RLE, boxes, scores), so it stays small whatever the size of the picture.
JSON, drawings and exports are in `s3seg.results.json_form`, `draw` and `export`; the methods here call those.
"""

from __future__ import annotations

import html
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from s3seg.errors import InvalidRequestError, MaskError, S3segError
from s3seg.results import masks
from s3seg.results.files import json_text, write_atomically
from s3seg.results.hints import Hint, joined
from s3seg.results.indexing import instance_numbers
from s3seg.results.instance import Instance
from s3seg.results.masks import RLE
from s3seg.results.model_info import ModelInfo
from s3seg.results.polygons import Polygon

if TYPE_CHECKING:
    import fiftyone as fo  # pyright: ignore[reportMissingImports]
    import pandas as pd
    import PIL.Image
    import supervision as sv

    from s3seg.images import ImageSource
    from s3seg.results.overlay_style import OverlayStyle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Segmentation:
    """All instances of one prompt on one picture, the highest score first.

    The constructor sorts the instances by falling score (equal scores keep their order) and makes its arrays
    read-only. Two results are equal when everything but `image`, `image_id` and `refiner` is.

    Attributes:
        prompt: the prompt; empty when only boxes or clicks were given.
        size: (height, width) of the picture.
        rles: N masks of that size.
        boxes: (N, 4) float32, xyxy in pixels, as predicted by the network.
        scores: (N,) float32, 0..1.
        presence: the probability that the picture shows the concept at all, 0..1.
        threshold: instances at or below this score were left out.
        model: the network, and the device and precision it ran with.
        timings: milliseconds by stage: "decode", "image", "prompt", "masks".
        notes: what was lost or left out when the picture was read, such as "only page 1 of 3 was read".
        hints: what the user should know, for example that the checkpoint does not know a word of the prompt.
        source: the picture's path, URL or other name, if it has one.
        image_id: identifies the picture, so that exports keep pictures apart that have no name, or the same: results
            with the same id are of the same picture. "kind:digest", where the digest is of the picture's content, or
            "kind:digest:number", where several pictures may have that content. None if unknown.
        image: the decoded picture, (H, W, 3) uint8 RGB, kept for drawing; never saved.
        refiner: what `refine` calls; set by `Segmenter`, and never saved.

    Raises:
        MaskError: a mask has another size than the picture.
        InvalidRequestError: columns of different length, or numbers outside their range.
    """

    prompt: str
    size: tuple[int, int]
    rles: tuple[RLE, ...]
    boxes: np.ndarray
    scores: np.ndarray
    presence: float
    threshold: float
    model: ModelInfo
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = ()
    source: str | None = None
    image_id: str | None = None
    image: np.ndarray | None = None
    refiner: Callable[..., RLE] | None = None

    def __post_init__(self) -> None:
        size = masks.checked_size(self.size)
        with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused below
            scores = np.asarray(self.scores, dtype=np.float32).reshape(-1)
            boxes = np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4)
        if not len(self.rles) == len(scores) == len(boxes):
            lengths = f"{len(self.rles)} masks, {len(boxes)} boxes, {len(scores)} scores"
            raise InvalidRequestError(f"a result needs one of each for every instance, got {lengths}")
        if not np.all((scores >= 0) & (scores <= 1)) or not 0 <= self.presence <= 1:
            raise InvalidRequestError(f"scores and presence are 0..1, got {scores} and {self.presence}")
        if not 0 <= self.threshold <= 1:
            raise InvalidRequestError(f"the threshold must be a score between 0 and 1, got {self.threshold!r:.60}")
        if not np.all(np.isfinite(boxes)):
            raise InvalidRequestError(f"boxes must be finite, got {boxes[~np.isfinite(boxes).all(axis=1)][0]}")
        if self.image is not None and (self.image.dtype != np.uint8 or self.image.shape != (*size, 3)):
            kind = f"{self.image.dtype} of shape {self.image.shape}"
            raise InvalidRequestError(f"the picture must be (H, W, 3) uint8 of size {size}, got {kind}")
        for rle in self.rles:
            if rle.size != size:
                raise MaskError(f"a mask has size {rle.size}, but the picture {size}")
        order = np.argsort(-scores, kind="stable")
        scores, boxes = scores[order], boxes[order]
        scores.flags.writeable = boxes.flags.writeable = False
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "rles", tuple(self.rles[k] for k in order))
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "presence", float(self.presence))
        object.__setattr__(self, "threshold", float(self.threshold))
        object.__setattr__(self, "timings", {stage: float(ms) for stage, ms in self.timings.items()})

    # ---- a sequence of instances ----

    def __len__(self) -> int:
        return len(self.rles)

    def __iter__(self) -> Iterator[Instance]:
        return (self[k] for k in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> Segmentation: ...
    def __getitem__(self, index: Any) -> Instance | Segmentation:
        """Return one instance, or a result with several (again sorted by score).

        Args:
            index: A whole number, negative from the end, for an instance. For a result: a slice, a list or array of
                whole numbers, or a list or array of N bools that says which to keep, such as ``result.scores > 0.5``.

        Raises:
            IndexError: There are fewer instances, or the number of bools is not N.
            TypeError: The index is something else.
        """
        if isinstance(index, slice):
            return self._take(range(len(self))[index])
        numbers = instance_numbers(index, len(self))
        if numbers.ndim:
            return self._take(numbers.tolist())
        k = int(numbers)
        x1, y1, x2, y2 = self.boxes[k].tolist()
        return Instance(self.rles[k], (x1, y1, x2, y2), float(self.scores[k]), self.prompt, self.image)

    def filter(
        self,
        predicate: Callable[[Instance], bool] | None = None,
        *,
        min_score: float = 0.0,
        min_area: int = 0,
        max_area: int | None = None,
    ) -> Segmentation:
        """Return a result with the instances that meet every condition.

        Args:
            predicate: called with each `Instance`; returns whether to keep it.
            min_score: lowest score kept.
            min_area: smallest mask kept, in pixels.
            max_area: largest mask kept, in pixels.

        Raises:
            InvalidRequestError: A limit is not a number.
        """
        for name, limit in {"min_score": min_score, "min_area": min_area, "max_area": max_area}.items():
            if limit is not None and not limit == limit:  # NaN, which would leave out every instance
                raise InvalidRequestError(f"{name} must be a number, got {limit!r:.60}")

        def keeps(k: int) -> bool:
            area = masks.area(self.rles[k])
            return bool(
                self.scores[k] >= min_score
                and area >= min_area
                and (max_area is None or area <= max_area)
                and (predicate is None or predicate(self[k]))
            )

        return self._take([k for k in range(len(self)) if keeps(k)])

    def largest(self) -> Instance | None:
        """Return the instance with the largest mask; of equal ones the best; None if nothing was found."""
        return max(self, key=lambda one: one.area, default=None)

    def _take(self, indices: Sequence[int]) -> Segmentation:
        rles = tuple(self.rles[k] for k in indices)
        return replace(self, rles=rles, boxes=self.boxes[list(indices)], scores=self.scores[list(indices)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Segmentation):
            return NotImplemented
        names = [f.name for f in fields(self) if f.name not in ("boxes", "scores", "image", "image_id", "refiner")]
        return (
            all(getattr(self, name) == getattr(other, name) for name in names)
            and np.array_equal(self.boxes, other.boxes)
            and np.array_equal(self.scores, other.scores)
        )

    def refine(
        self,
        index: int,
        points: Sequence[Sequence[float]] = (),
        labels: Sequence[int] | None = None,
        *,
        box: Sequence[float] | None = None,
    ) -> Segmentation:
        """Correct the mask of one instance with clicks, and return a result in which it is replaced.

        The instance keeps its score and its place; its box becomes that of the new mask. The picture is encoded again
        if its `Embedding` is gone.

        Args:
            index: The instance, negative from the end.
            points: (x, y) in pixels: what to add to the mask, or to take from it.
            labels: 1 for a point to add, 0 for one to take away; None if all are to be added.
            box: (x1, y1, x2, y2) around the object, or None.

        Raises:
            IndexError: There is no such instance.
            InvalidRequestError: A point or the box is malformed or outside the picture; the checkpoint has no click
                head; or the result was not made by a `Segmenter` in this process.
        """
        numbers = instance_numbers(index, len(self))
        if numbers.ndim:
            raise InvalidRequestError(f"refine takes the number of one instance, got {index!r:.60}")
        if self.refiner is None:
            raise InvalidRequestError(
                "this result was loaded, or comes from a service, so there is no network to refine it with: use "
                "click(image, points, labels, mask=result[k].rle) of a Segmenter"
            )
        k = range(len(self))[int(numbers)]
        rle = self.refiner(self, k, points, labels, box)
        boxes = self.boxes.copy()
        boxes[k] = masks.box(rle)
        return replace(self, rles=(*self.rles[:k], rle, *self.rles[k + 1 :]), boxes=boxes)

    @property
    def hint(self) -> str | None:
        """The `hints` as one line, or None if there are none."""
        return joined(self.hints)

    # ---- masks ----

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool; decoded on each access.

        Takes N × H × W bytes: 1.2 GB for 100 instances on 12 megapixels. To hold one mask at a time, use
        `instance.mask` in a loop over the result.
        """
        stack = np.zeros((len(self), *self.size), dtype=np.bool_)
        for k, rle in enumerate(self.rles):
            crop, (y, x) = masks.decode_box(rle)
            stack[k, y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return stack

    def union(self) -> np.ndarray:
        """Return a mask of the pixels in any instance, (H, W) bool."""
        return masks.decode(masks.union(self.rles)) if self.rles else np.zeros(self.size, dtype=np.bool_)

    def label_map(self) -> np.ndarray:
        """Return the label map: 0 is background, k the k-th instance by score.

        (H, W) uint8, or uint16 if there are more than 255 instances. Where instances overlap, the higher score wins.
        """
        return masks.label_map(self.rles, self.size)

    # ---- JSON and files ----

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the picture as plain JSON values; `from_dict` turns them into an equal result."""
        from s3seg.results import json_form

        return json_form.to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Segmentation:
        """Read what `to_dict` returned.

        Raises:
            MaskError: a mask is malformed or has another size than the picture.
            InvalidRequestError: anything else is missing or wrong.
        """
        from s3seg.results import json_form

        return json_form.from_dict(data, make=cls)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the result to a file; after a failure there is no partly written file.

        Args:
            path: `.json` for everything but the picture (see `load`), `.png` for the label map.

        Raises:
            InvalidRequestError: another suffix.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            return write_atomically(path, json_text(self.to_dict()))
        if suffix == ".png":
            from s3seg.results import export

            return write_atomically(path, export.png_label_map(self))
        raise InvalidRequestError(
            f"cannot save a Segmentation as {suffix!r}: .json keeps everything, .png is the label map; "
            "for pictures see overlay().save(...), for other formats the to_...() methods"
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Segmentation:
        """Load a file with one result: what `save` wrote, or any that `load_all` reads.

        Raises:
            InvalidRequestError: the file is not a saved result, or holds several.
            OSError: it cannot be read.
        """
        results = cls.load_all(path)
        if len(results) != 1:
            raise InvalidRequestError(
                f"{path} holds {len(results)} results: Segmentation.load_all(path) returns a list"
            )
        return results[0]

    @classmethod
    def load_all(cls, path: str | os.PathLike[str]) -> list[Segmentation]:
        """Load every result in a file.

        Reads all JSON that `save`, the command line and the services write with full results: one result, an array of
        them (`--json`), JSON Lines (`--jsonl`), and the instances file in which a service stores a task.

        Raises:
            InvalidRequestError: the file holds something else; the message says what, if it is known.
            OSError: it cannot be read.
        """
        from s3seg.results import json_form

        content = Path(path).read_bytes()
        try:
            stored = json_form.read_file(content)
            results = [cls.from_dict(one) for one in stored.results]
            return results if stored.threshold is None else [cut(one, stored.threshold) for one in results]
        except MaskError as err:
            raise MaskError(f"{path}: {err}") from err
        except S3segError as err:
            raise InvalidRequestError(f"{path}: {err}") from err
        except ValueError as err:
            raise InvalidRequestError(f"{path} is not JSON: {err}") from err

    # ---- pictures ----

    def overlay(self, image: ImageSource | None = None, **style: Unpack[OverlayStyle]) -> PIL.Image.Image:
        """Draw the instances on the picture. For several results on one picture, see `s3seg.results.draw.overlay`.

        Args:
            image: the picture, from any source that `s3seg.images.load` takes, and read in the same way (turned by its
                EXIF orientation); required if the result does not hold it, as after `load`.
            style: how it looks: ``color_by``, ``colors``, ``opacity``, ``outlines``, ``line_width``, ``labels``,
                ``font`` and ``font_size``; see `s3seg.results.overlay_style.OverlayStyle`.
        """
        from s3seg.results import draw

        return draw.overlay(self._image(image), self, **style)

    def crops(self, image: ImageSource | None = None) -> list[PIL.Image.Image]:
        """Cut every instance out of the picture: RGBA images of the size of the mask's box, with the mask as alpha.

        Args:
            image: the picture, as for `overlay`.
        """
        from s3seg.results import draw

        return draw.crops(self._image(image), self)

    def _image(self, image: ImageSource | None) -> ImageSource:
        if image is not None:
            return image
        if self.image is None:
            raise InvalidRequestError("this result does not hold its picture (saved files never do): pass image=...")
        from s3seg import images

        return images.of_result(self.image)

    # ---- other formats ----

    def to_polygons(self, *, tolerance: float = 0.0) -> list[list[Polygon]]:
        """Trace each instance as polygons (exterior ring, then holes); see `s3seg.results.polygons`.

        Args:
            tolerance: pixels by which an outline may move, to leave out vertices. With 0 the polygons are exact.
        """
        return [masks.polygons(rle, tolerance=tolerance) for rle in self.rles]

    def to_coco(self, *, polygons: bool = False, tolerance: float = 0.0, base_names: bool = False) -> dict[str, Any]:
        """Return a COCO dataset of this picture; see `s3seg.results.export.coco`, which takes many results too."""
        from s3seg.results import export

        return export.coco([self], polygons=polygons, tolerance=tolerance, base_names=base_names)

    @classmethod
    def from_coco(
        cls, dataset: str | os.PathLike[str] | Mapping[str, Any], *, empty_results: bool = False
    ) -> list[Segmentation]:
        """Read a COCO instance dataset, of this or another tool; see `s3seg.results.coco.read_coco`."""
        from s3seg.results import coco

        return coco.read_coco(dataset, empty_results=empty_results, make=cls)

    def to_yolo(self, *, class_id: int = 0, tolerance: float = 0.0) -> str:
        """Return YOLO segmentation labels, one line per instance; see `s3seg.results.export.yolo`."""
        from s3seg.results import export

        return export.yolo(self, class_id=class_id, tolerance=tolerance)

    def to_geojson(self, *, tolerance: float = 0.0) -> dict[str, Any]:
        """Return a GeoJSON FeatureCollection in pixel coordinates; see `s3seg.results.export.geojson`."""
        from s3seg.results import export

        return export.geojson(self, tolerance=tolerance)

    def to_pandas(self) -> pd.DataFrame:
        """Return a `pandas.DataFrame` with one row per instance; see `s3seg.results.export.pandas`."""
        from s3seg.results import export

        return export.pandas([self])

    def to_supervision(self) -> sv.Detections:
        """Return `supervision.Detections`; see `s3seg.results.export.supervision`."""
        from s3seg.results import export

        return export.supervision([self])

    @classmethod
    def from_supervision(cls, detections: sv.Detections, *, model: ModelInfo | None = None) -> list[Segmentation]:
        """Turn `supervision.Detections` of one picture into results, one for each class, in order of appearance.

        The prompts are the names of the classes, or else their numbers; without a confidence, the score is 1.

        Args:
            detections: With masks.
            model: The network that found them, if it is known.

        Raises:
            InvalidRequestError: The detections have no masks.
        """
        from s3seg.results.from_supervision import from_supervision

        return from_supervision(detections, make=cls, model=model)

    def to_fiftyone(self) -> fo.Detections:
        """Return `fiftyone.Detections`; see `s3seg.results.export.fiftyone`."""
        from s3seg.results import export

        return export.fiftyone([self])

    # ---- representations ----

    def __repr__(self) -> str:
        scores = ", ".join(f"{score:.2f}" for score in self.scores[:5]) + (", …" if len(self) > 5 else "")
        found = f"{len(self)} instance{'' if len(self) == 1 else 's'}" + (f" ({scores})" if len(self) else "")
        where = f"in {self.source or 'picture'} {self.size[1]}×{self.size[0]}, presence {self.presence:.2f}"
        return f"<Segmentation {self.prompt!r}: {found} {where}, {self.model.name}>"

    def _repr_png_(self) -> bytes:
        from s3seg.results import draw

        buffer = BytesIO()
        draw.thumbnail(self).save(buffer, format="PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        rows = [("prompt", self.prompt or "(boxes or clicks)"), ("found", str(len(self)))]
        rows += [("scores", ", ".join(f"{score:.2f}" for score in self.scores[:10]))] if len(self) else []
        which = f"{self.model.name} {self.model.version}"
        known = f"; {self.model.summary}" if self.model.summary else ""
        rows += [("presence", f"{self.presence:.2f}"), ("model", which + known)]
        rows += [("hint", hint.text) for hint in self.hints]
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
        picture = b64encode(self._repr_png_()).decode("ascii")
        return f'<img src="data:image/png;base64,{picture}" alt="instances"/><table>{cells}</table>'


def cut(result: Segmentation, threshold: float, *, max_instances: int | None = None) -> Segmentation:
    """Keep the instances that score above a threshold.

    The comparison is in float32, the type of the scores, as in the network: cutting later keeps the same instances as
    asking the network with this threshold.

    Args:
        result: With every instance above a lower threshold.
        threshold: 0..1; becomes the ``threshold`` of the returned result.
        max_instances: Keep at most this many, the best; None keeps all.
    """
    count = int(np.count_nonzero(result.scores > np.float32(threshold)))  # sorted: the best come first
    count = count if max_instances is None else min(count, max_instances)
    return replace(result[:count], threshold=threshold)
