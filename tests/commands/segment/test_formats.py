"""Masks for other programs, counts, and polygons, from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.running import Command, GetPicture


@pytest.fixture(scope="module")
def opened():
    return lambda path: np.asarray(Image.open(path))


def test_masks_are_labels_white_colours_or_classes(s3seg: Command, picture: GetPicture, tmp_path: Path, opened):
    kinds = {}
    for kind in ("labels", "binary", "palette", "classes"):
        folder = tmp_path / kind
        arguments = ("--mask", folder, "--mask-kind", kind)
        done = s3seg("segment", picture("street"), "car", "-p", "house", *arguments, "--quiet")
        assert done.exit_code == 0, done.stderr
        kinds[kind] = {path.name: opened(path) for path in folder.glob("*.png")}
    labels = kinds["labels"]["street.car.mask.png"]
    assert labels.max() == 2
    assert np.array_equal(kinds["binary"]["street.car.mask.png"], np.where(labels, 255, 0))
    assert np.array_equal(kinds["palette"]["street.car.mask.png"], labels)
    with Image.open(tmp_path / "palette/street.car.mask.png") as palette:
        assert palette.mode == "P"
    classes = kinds["classes"]["street.mask.png"]
    houses = kinds["labels"]["street.house.mask.png"]
    assert np.array_equal(classes > 0, (labels > 0) | (houses > 0))
    assert set(np.unique(classes[(labels > 0) & (houses == 0)])) == {1}
    done = s3seg(
        *("segment", picture("street"), "car", "-p", "house", "-q"),
        *("--mask", tmp_path / "one.png", "--mask-kind", "classes"),
    )
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(opened(tmp_path / "one.png"), classes)


def test_counts_have_zeros(s3seg: Command, picture: GetPicture):
    done = s3seg("segment", picture("street"), picture("shapes"), "-p", "car", "-p", "star", "-f", "counts", "-q")
    assert done.exit_code == 0, done.stderr
    table = csv.DictReader(io.StringIO(done.stdout))
    rows = [(Path(row["source"]).stem, row["prompt"], int(row["count"])) for row in table]
    assert [row[:2] for row in rows] == [(a, b) for a in ("street", "shapes") for b in ("car", "star")]
    counts = {row[:2]: row[2] for row in rows}
    assert counts["street", "car"] == 2
    assert counts["street", "star"] == counts["shapes", "car"] == 0


def test_coco_has_polygons_and_base_names_on_request(s3seg: Command, picture: GetPicture, tmp_path: Path):
    path = tmp_path / "coco.json"
    arguments = ("--polygons", "--tolerance", "1", "--base-names", "-f", "coco", "-o", path, "-q")
    done = s3seg("segment", picture("street"), "car", *arguments)
    assert done.exit_code == 0, done.stderr
    dataset = json.loads(path.read_text())
    assert dataset["images"][0]["file_name"] == "street.png"
    assert all(isinstance(one["segmentation"], list) for one in dataset["annotations"])
    exact = json.loads(s3seg("segment", picture("street"), "car", "--polygons", "-f", "coco", "-q").stdout)

    def vertices(data):
        return sum(len(path) for one in data["annotations"] for path in one["segmentation"])

    assert vertices(dataset) * 2 < vertices(exact)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mask-kind", "binary"], "--mask-kind needs --mask"),
        (["--polygons", "-f", "csv"], "--polygons needs --format coco"),
        (["--base-names"], "--base-names needs"),
        (["--tolerance", "2", "-f", "coco"], "--tolerance needs"),
        (["--tolerance", "nan", "-f", "yolo"], "--tolerance"),
    ],
)
def test_options_without_effect_are_refused(s3seg: Command, picture: GetPicture, arguments, message):
    done = s3seg("segment", picture("street"), "car", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_results_and_coco_become_a_data_set(s3seg: Command, picture: GetPicture, tmp_path: Path):
    for name, arguments in {"found.json": ["--json"], "coco.json": ["-f", "coco"], "found.jsonl": ["--jsonl"]}.items():
        path = tmp_path / name
        pictures = [picture("street"), picture("shapes")]
        assert s3seg("segment", *pictures, "-p", "car", "-p", "star", *arguments, "-o", path, "-q").exit_code == 0
        done = s3seg("export", "yolo", path, "-o", tmp_path / f"set-{name}")
        assert done.exit_code == 0, done.stderr
        assert "pictures for training: 1, for validation: 1" in done.stderr
        found = {path.stem: path.read_text() for path in (tmp_path / f"set-{name}/labels").rglob("*.txt")}
        assert [line[0] for line in found["street"].splitlines()] == ["0"] * 2
        assert {line[0] for line in found["shapes"].splitlines()} == {"1"}
    assert s3seg("export", "yolo", tmp_path / "coco.json", "-o", tmp_path / "set-coco.json").exit_code == 2
