"""The names and shapes of the full-size checkpoints match what the loader looks for. Uses no memory."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from s3seg.errors import CheckpointError
from s3seg.sam3.config import Sam3Config
from s3seg.sam3.layouts import Layout
from s3seg.sam3.load import empty_model, plan_loading
from s3seg.sam3.reference_layouts import REFERENCE
from s3seg.sam3.sources import Chunk, Concat, PositionGrid, TensorSource, required_tensors
from s3seg.sam3.transformers_layouts import TRANSFORMERS
from tests.sam3.convert_layout import to_sam31

LAYOUTS = [TRANSFORMERS, REFERENCE]
TRACKER = {
    "transformers": ("tracker_model.mask_downsample.weight", "tracker_neck.fpn_layers.0.proj1.weight"),
    "reference": (
        "tracker.maskmem_tpos_enc",
        "detector.backbone.vision_backbone.sam2_convs.0.conv_1x1.weight",
    ),
}
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def wanted() -> Shapes:
    model = empty_model(Sam3Config())
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.name)
def layout(request) -> Layout:
    return request.param


@pytest.fixture
def published(layout: Layout, golden: Path) -> Shapes:
    """Names without a prefix."""
    lines = (golden / f"keys_{layout.name}_full.tsv").read_text().splitlines()
    rows = [line.split("\t")[:2] for line in lines[1:]]
    return {name.removeprefix(layout.prefix): tuple(int(n) for n in shape.split(",") if n) for name, shape in rows}


@pytest.mark.parametrize("with_tracker", [False, True], ids=["detector only", "with a tracker"])
@pytest.mark.parametrize("prefixed", [False, True], ids=["bare", "prefixed"])
def test_every_tensor_of_the_full_size_is_found_and_no_other_is_there(
    layout, published, wanted, prefixed, with_tracker
):
    names = {layout.prefix * prefixed + name: shape for name, shape in published.items()}
    if with_tracker:
        names |= dict.fromkeys(TRACKER[layout.name], (7, 7))

    plan = plan_loading(names, layout, wanted, path=Path("full"))

    used = [part for source in set(plan.values()) for part in _names(source)]
    assert plan.keys() == wanted.keys()
    assert {name for name in published if name not in used} == {name for name in published if layout.is_unused(name)}


def test_no_part_of_a_tensor_is_used_twice(layout, published, wanted):
    plan = plan_loading(published, layout, wanted, path=Path("full"))
    assert len(set(plan.values())) == len(plan)
    parts = [part for source in plan.values() for part in _names(source)]
    chunked = {source.name for source in plan.values() if isinstance(source, Chunk)}
    assert all(parts.count(part) == (3 if part in chunked else 1) for part in set(parts))


def test_all_values_but_the_unused_are_taken(layout, published, wanted):
    unused = sum(math.prod(shape) for name, shape in published.items() if layout.is_unused(name))
    cls_rows = math.prod(wanted["vision.trunk.position_embedding"][2:]) if layout is REFERENCE else 0
    assert _count(wanted) == 838_999_349
    assert _count(published) - unused - cls_rows == 838_999_349


def test_each_unused_pattern_matches_a_published_tensor(layout, published):
    half_level = {"transformers": "tracker_neck.fpn_layers.3.proj1.bias"}.get(
        layout.name, "backbone.vision_backbone.sam2_convs.3.conv_1x1.bias"
    )
    for pattern in layout.unused:
        assert any(re.fullmatch(pattern, name) for name in [*published, half_level]), pattern


def test_each_layout_has_its_own_name_for_the_presence_token(layout, published):
    other = next(other for other in LAYOUTS if other is not layout)
    assert layout.source("decoder.presence_token") in published
    assert other.source("decoder.presence_token") not in published


def test_the_reference_needs_no_configuration_at_full_size(golden):
    lines = (golden / "keys_reference_full.tsv").read_text().splitlines()[1:]
    shapes = {
        name.removeprefix("detector."): tuple(map(int, shape.split(",")))
        for name, shape, _ in (line.split("\t") for line in lines)
    }
    assert Sam3Config.from_reference_shapes(shapes) == Sam3Config()


def test_every_tensor_of_the_detector_of_sam_3_1_is_found_and_no_other_is_there(golden, wanted):
    lines = (golden / "keys_reference_full.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t")[:2] for line in lines]
    sam3 = {name.removeprefix("detector."): torch.empty(_shape(shape), device="meta") for name, shape in rows}
    sam31 = {f"detector.{name}": tuple(tensor.shape) for name, tensor in to_sam31(sam3).items()}
    assert len(sam31) == 1166  # as counted in the published file, beside 457 of the tracker

    plan = plan_loading(sam31 | {"tracker.model.maskmem_tpos_enc": (7, 7)}, REFERENCE, wanted, path=Path("sam3.1"))

    used = {name for source, ours in plan.items() for name in required_tensors(ours, wanted[source])}
    left = {name.removeprefix("detector.") for name in sam31} - used
    tri_neck = re.compile(r"backbone\.vision_backbone\.(interactive|propagation)_convs\.[012]\.")
    assert len([name for name in left if tri_neck.match(name)]) == 36
    assert all(tri_neck.match(name) or REFERENCE.is_unused(name) for name in left)


def test_missing_unexpected_and_wrongly_shaped_tensors_are_all_listed(layout, published, wanted):
    names = dict(published)
    missing = next(iter(_names(layout.source("decoder.norm.weight"))))
    wrong_shape = next(iter(_names(layout.source("encoder.layers.2.norm1.bias"))))
    del names[missing]
    names[wrong_shape] = (255,)
    names["no_such.tensor"] = (1,)

    with pytest.raises(CheckpointError) as caught:
        plan_loading(names, layout, wanted, path=Path("some/model.file"))

    message = str(caught.value)
    assert "some/model.file" in message
    assert "3 tensors" in message
    assert f"missing {missing} [256]" in message
    assert f"{wrong_shape} has shape [255], not [256]" in message
    assert "unexpected no_such.tensor" in message


def test_a_long_list_of_problems_is_cut_and_says_how_many_more_there_are(layout, wanted):
    with pytest.raises(CheckpointError, match=r"and \d{3,} more$") as caught:
        plan_loading({}, layout, wanted, path=Path("empty"))
    assert len(str(caught.value).splitlines()) == 42


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _names(source: TensorSource) -> tuple[str, ...]:
    match source:
        case Concat(names):
            return names
        case Chunk(name, _) | PositionGrid(name, _):
            return (name,)
        case str():
            return (source,)
