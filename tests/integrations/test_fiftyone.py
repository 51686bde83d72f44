"""Detections of FiftyOne, and its `dataset.apply_model` with a database of its own: `make test-integrations`."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3seg.errors import PromptError
from s3seg.inference.segmenter import Segmenter
from s3seg.results import export
from tests.helpers.inference_system import PICTURES
from tests.integrations.running import same_mask

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def fo(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("fiftyone")
    for name in ("DATABASE_DIR", "DEFAULT_DATASET_DIR", "MODEL_ZOO_DIR", "DATASET_ZOO_DIR"):
        patch.setenv(f"FIFTYONE_{name}", str(folder / name.lower()))
    patch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    patch.setenv("HOME", str(folder))
    if not _has_database():
        patch.setenv("FIFTYONE_DISABLE_SERVICES", "true")
    yield pytest.importorskip("fiftyone", reason="run `make test-integrations`")
    patch.undo()


def _has_database():
    """Whether the package brought its database, or the address of one is set."""
    found = importlib.util.find_spec("fiftyone")
    if found is None or os.environ.get("FIFTYONE_DATABASE_URI"):
        return found is not None
    return (Path(found.submodule_search_locations[0]) / "db" / "bin" / "mongod").exists()


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter("embedded")


def whole_mask(fo, detection, size):
    """The mask in the picture, as FiftyOne itself makes it."""
    height, width = size
    segmentation = detection.to_segmentation(frame_size=(width, height), target=255)
    return segmentation.mask > 0


def test_detections_have_the_masks_boxes_and_scores(fo, segmenter):
    results = segmenter.segment(PICTURES / "park.png", ["tree", "cloud"])
    detections = export.fiftyone(results).detections
    assert [one.label for one in detections] == ["tree", "tree", "cloud"]
    for one, instance in zip(detections, [*results[0], *results[1]], strict=True):
        assert one.confidence == pytest.approx(instance.score)
        assert np.array_equal(whole_mask(fo, one, (640, 800)), instance.mask)
    assert len(results[0].to_fiftyone().detections) == 2
    assert export.fiftyone([]).detections == []


@pytest.mark.skipif(not _has_database(), reason="fiftyone has no database here")
def test_a_dataset_gets_labels_from_the_model(fo, segmenter):
    from s3seg.integrations.fiftyone_model import FiftyOneModel

    dataset = fo.Dataset("s3seg-test", overwrite=True)
    try:
        dataset.add_samples([fo.Sample(filepath=str(PICTURES / f"{name}.png")) for name in ("park", "street")])
        dataset.apply_model(FiftyOneModel(segmenter, ["tree", "cloud"]), label_field="found")
        for sample in dataset:
            expected = segmenter.segment(Image.open(sample.filepath), ["tree", "cloud"])
            instances = [*expected[0], *expected[1]]
            assert len(sample.found.detections) == len(instances)
            for one, instance in zip(sample.found.detections, instances, strict=True):
                assert same_mask(whole_mask(fo, one, expected[0].size), instance.mask)
        assert dataset.count_values("found.detections.label")["tree"] >= 2
    finally:
        dataset.delete()


def test_the_model_labels_pictures_as_fiftyone_reads_them(fo, segmenter):
    from fiftyone.core.models import Model
    from fiftyone.utils.image import read

    from s3seg.integrations.fiftyone_model import FiftyOneModel

    trees, suns = segmenter.segment(PICTURES / "park.png", ["tree", "sun"], threshold=0.1)
    threshold = (trees[0].score + suns[0].score) / 2
    assert trees[0].score < threshold < suns[0].score
    model = FiftyOneModel(segmenter, ["tree", "sun"], threshold=threshold)
    assert isinstance(model, Model)
    assert (model.media_type, model.ragged_batches, model.transforms) == ("image", True, None)
    with model:
        detections = model.predict(read(str(PICTURES / "park.png"))).detections
    assert [one.label for one in detections] == ["sun"]
    assert same_mask(whole_mask(fo, detections[0], (640, 800)), suns[0].mask)


def test_a_model_needs_a_prompt(fo, segmenter):
    from s3seg.integrations.fiftyone_model import FiftyOneModel

    with pytest.raises(PromptError):
        FiftyOneModel(segmenter, [])
