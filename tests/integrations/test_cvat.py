"""The auto-annotation function, called by CVAT's own driver and command line: `make test-integrations`."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from s3seg.errors import InvalidRequestError
from s3seg.inference.segmenter import Segmenter
from tests.helpers.inference_system import PICTURES
from tests.integrations.test_roboflow import filled

cvataa = pytest.importorskip("cvat_sdk.auto_annotation", reason="run `make test-integrations`")
from cvat_sdk import models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402
from cvat_sdk.masks import decode_mask  # noqa: E402

from s3seg.integrations.cvat import CvatFunction, create, parse_labels  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("embedded")


class Task:
    """A task of one picture, as the driver sees it, which keeps the annotations that are uploaded."""

    def __init__(self, monkeypatch, labels):
        def sample():
            media = SimpleNamespace(load_image=lambda: Image.open(PICTURES / "park.png"))
            return SimpleNamespace(frame_name="park.png", frame_index=7, media=media)

        dataset = SimpleNamespace(labels=labels, samples=[sample()])
        monkeypatch.setattr(driver, "TaskDataset", lambda *arguments, **options: dataset)
        self.uploaded = None
        api = SimpleNamespace(partial_update_annotations=self._upload)
        self.client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))

    def _upload(self, action, task_id, *, patched_labeled_data_request):
        self.uploaded = patched_labeled_data_request.shapes

    def annotate(self, function, **options):
        cvataa.annotate_task(self.client, 1, function, **options)
        return self.uploaded


def label(name, id_, type_="any"):
    return models.Label(name=name, id=id_, type=type_, attributes=[], sublabels=[])


def test_the_driver_uploads_the_masks_of_the_segmenter(monkeypatch, segmenter):
    task = Task(monkeypatch, [label("cloud", 31), label("plant", 32)])
    shapes = task.annotate(CvatFunction(segmenter, {"plant": "tree", "cloud": "cloud"}))
    expected = segmenter.segment(PICTURES / "park.png", ["tree", "cloud"])
    assert [(shape.label_id, shape.frame, shape.type.value) for shape in shapes] == [
        (32, 7, "mask"),
        (32, 7, "mask"),
        (31, 7, "mask"),
    ]
    for shape, instance in zip(shapes, [*expected[0], *expected[1]], strict=True):
        assert np.array_equal(decode_mask(shape.points, image_width=800, image_height=640), instance.mask)


@pytest.mark.parametrize(("shape", "options"), [("polygon", {}), ("mask", {"conv_mask_to_poly": True})])
def test_polygons_enclose_the_masks(monkeypatch, segmenter, shape, options):
    task = Task(monkeypatch, [label("tree", 5, "polygon")])
    shapes = task.annotate(CvatFunction(segmenter, {"tree": "tree"}, shape=shape), **options)
    paths = [np.array(one.points).reshape(-1, 2) for one in shapes]
    assert {one.type.value for one in shapes} == {"polygon"}
    assert np.array_equal(filled(paths, (640, 800)), segmenter.segment(PICTURES / "park.png", "tree").union())


def test_the_threshold_of_the_task_is_used(monkeypatch, segmenter):
    best, second = (one.score for one in list(segmenter.segment(PICTURES / "park.png", "tree"))[:2])
    counts = []
    for threshold in (0.1, (best + second) / 2, 0.99):
        task = Task(monkeypatch, [label("tree", 5)])
        counts.append(len(task.annotate(CvatFunction(segmenter, {"tree": "tree"}), conf_threshold=threshold)))
    assert counts[0] >= 2 > counts[1] == 1 > counts[2] == 0


def test_labels_that_the_task_lacks_are_an_error_or_left_out(monkeypatch, segmenter):
    function = CvatFunction(segmenter, {"tree": "tree", "cloud": "cloud"})
    with pytest.raises(cvataa.BadFunctionError, match="'cloud' is not in dataset"):
        Task(monkeypatch, [label("tree", 5)]).annotate(function)
    shapes = Task(monkeypatch, [label("tree", 5)]).annotate(function, allow_unmatched_labels=True)
    assert len(shapes) == 2


def test_the_command_line_loads_the_function_with_its_parameters():
    from cvat_cli._internal.common import FunctionLoader

    loader = FunctionLoader("s3seg.integrations.cvat", None, {"labels": "tree,sky=cloud", "checkpoint": "embedded"})
    function = loader.load()
    assert [one.name for one in function.spec.labels] == ["tree", "sky"]


def test_an_agent_accepts_the_function():
    from cvat_cli._internal.agent import get_function_driver_class

    spec = create("tree,sky=cloud", checkpoint="embedded", shape="polygon").spec
    fields = get_function_driver_class(spec).get_remote_function_fields(spec)
    assert [(one["name"], str(one["type"])) for one in fields["labels_v2"]] == [("tree", "polygon"), ("sky", "polygon")]


def test_labels_are_names_or_names_with_prompts():
    assert parse_labels("tree, vehicle = red car") == {"tree": "tree", "vehicle": "red car"}


@pytest.mark.parametrize("text", ["", "tree,", "=cat", "cat=", "cat,cat"])
def test_labels_that_cannot_be_used_are_told(text):
    with pytest.raises(InvalidRequestError):
        parse_labels(text)


def test_an_unknown_shape_is_told(segmenter):
    with pytest.raises(InvalidRequestError, match="'mask' or 'polygon'"):
        CvatFunction(segmenter, {"a": "a"}, shape="circle")
