from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3seg import Segmentation, Segmenter
from tests.commands.running import Command, GetPicture


@pytest.fixture
def folder(tmp_path: Path, picture: GetPicture) -> Path:
    """street.png and shapes.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("street", "shapes"):
        shutil.copy(picture(name), folder)
    return folder


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("embedded")


def test_without_an_output_option_it_prints_a_table_and_says_which_checkpoint(
    s3seg: Command, picture: GetPicture
) -> None:
    done = s3seg("segment", picture("street"), "car", "-p", "gargoyle")
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == [str(picture("street")), "800", "×", "640"]
    assert rows[1] == ["#", "prompt", "score", "x1", "y1", "x2", "y2", "area"]
    assert [row[:2] for row in rows[2:4]] == [["1", "car"], ["2", "car"]]
    assert rows[-1] == ["gargoyle", "not", "found"]
    assert "checkpoint: s3seg-embedded" in done.stderr
    assert "does not know photographs" in done.stderr
    assert "hint: the s3seg-embedded checkpoint does not know 'gargoyle'" in done.stderr
    assert re.search(r"^time: .*decode \d+ ms", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stdout + done.stderr


def test_json_on_stdout_is_what_the_library_finds(s3seg: Command, folder: Path, segmenter: Segmenter) -> None:
    done = s3seg("segment", folder, "star", "-p", "car", "--json", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    found = [Segmentation.from_dict(one) for one in json.loads(done.stdout)]
    expected = [
        result for name in ("shapes", "street") for result in segmenter.segment(folder / f"{name}.png", ["star", "car"])
    ]
    assert [(one.source, one.prompt, one.rles) for one in found] == [
        (one.source, one.prompt, one.rles) for one in expected
    ]
    assert sum(map(len, found)) > 3


def test_options_reach_the_model(s3seg: Command, picture: GetPicture) -> None:
    options = ("--threshold", "0.6", "--max-instances", "1", "--image-size", "192", "--device", "cpu")
    done = s3seg("segment", picture("street"), "house", *options, "--dtype", "float32", "--jsonl")
    result = Segmentation.from_dict(json.loads(done.stdout))
    assert len(result) <= 1
    assert result.threshold == 0.6
    assert (result.model.device, result.model.dtype) == ("cpu", "float32")


def test_every_output_at_once(s3seg: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outputs = ("--overlay", out, "--mask", out / "masks", "--crops", out / "crops", "-f", "yolo", "-o", out / "labels")
    done = s3seg("segment", folder, "star", "-p", "car", *outputs)
    assert (done.exit_code, done.stdout) == (0, "")
    assert _names(out) == {"shapes.overlay.png", "street.overlay.png"}
    assert _names(out / "masks") == {
        f"{name}.{said}.mask.png" for name in ("shapes", "street") for said in ("star", "car")
    }
    assert _names(out / "labels") == {"classes.txt", "shapes.txt", "street.txt"}
    assert (out / "labels" / "classes.txt").read_text() == "star\ncar\n"
    cars = (out / "labels" / "street.txt").read_text().splitlines()
    assert cars
    assert {line.split()[0] for line in cars} == {"1"}
    with Image.open(out / "masks" / "street.car.mask.png") as label_map:
        assert np.unique(np.asarray(label_map)).tolist() == list(range(len(cars) + 1))
    assert {f"street.car.{k:03d}.png" for k in range(1, len(cars) + 1)} <= _names(out / "crops")
    with Image.open(out / "shapes.overlay.png") as overlay, Image.open(folder / "shapes.png") as original:
        assert overlay.size == original.size
        assert np.any(np.asarray(overlay) != np.asarray(original.convert("RGB")))


def test_documents_in_files(s3seg: Command, folder: Path, tmp_path: Path) -> None:
    assert s3seg("segment", folder, "star", "-f", "coco", "-o", tmp_path / "coco.json").exit_code == 0
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert [Path(image["file_name"]).name for image in coco["images"]] == ["shapes.png", "street.png"]
    assert [category["name"] for category in coco["categories"]] == ["star"]
    assert s3seg("segment", folder, "star", "-o", tmp_path / "found.csv").exit_code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text())))
    assert [row["source"] for row in rows if row["instance"] == "0"] == [str(folder / "street.png")]  # it has no star
    rows = [row for row in rows if row["instance"] != "0"]
    assert len(rows) == len(coco["annotations"]) > 0
    assert [int(row["area"]) for row in rows] == [one["area"] for one in coco["annotations"]]
    assert s3seg("segment", folder, "star", "--json", "-o", tmp_path / "each").exit_code == 0
    assert len(Segmentation.load(tmp_path / "each" / "shapes.star.json")) == len(rows)
    assert _names(tmp_path) == {"coco.json", "found.csv"}
    assert not list(tmp_path.glob(".*"))


def test_one_picture_in_one_file(s3seg: Command, picture: GetPicture, segmenter: Segmenter, tmp_path: Path) -> None:
    street, out = picture("street"), tmp_path / "new"
    done = s3seg("segment", street, "car", "--overlay", out / "a.jpg", "--mask", out / "a.png", "-f", "geojson")
    assert done.exit_code == 0
    with Image.open(out / "a.jpg") as overlay, Image.open(out / "a.png") as label_map:
        assert (overlay.format, overlay.size, label_map.size) == ("JPEG", (800, 640), (800, 640))
    features = json.loads(done.stdout)["features"]
    assert [feature["properties"]["prompt"] for feature in features] == ["car"] * len(features)
    assert len(features) == len(segmenter.segment(street, "car")) > 0


def test_a_box_shows_what_to_look_for(s3seg: Command, picture: GetPicture, segmenter: Segmenter) -> None:
    done = s3seg("segment", picture("park"), "--box", "35,159,240,385", "--json", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    found = Segmentation.from_dict(json.loads(done.stdout)[0])
    assert found.boxes.tolist() == segmenter.segment(picture("park"), boxes=[(35, 159, 240, 385)]).boxes.tolist()
    assert len(found) == 2  # the tree in the box, and the other one


def test_a_picture_that_fails_does_not_stop_the_rest(s3seg: Command, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"not a picture")
    done = s3seg("segment", folder, tmp_path / "gone.png", tmp_path / "empty" / "*.png", "star", "--jsonl")
    assert done.exit_code == 3
    assert [Path(json.loads(line)["source"]).name for line in done.stdout.splitlines()] == ["shapes.png", "street.png"]
    assert done.stderr.count("error: ") == 3
    for name in ("broken.png", "gone.png", "*.png"):
        assert name in done.stderr


@pytest.mark.parametrize("source", ["http://[cat/x.png", "http://", "data:image/png;base64,AAAA", "x" * 5000])
def test_an_invalid_address_is_a_picture_that_fails(s3seg: Command, picture: GetPicture, source: str) -> None:
    done = s3seg("segment", source, picture("street"), "car", "--jsonl", "--quiet")
    assert done.exit_code == 3
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith(f"error: {source[:20]}")


def test_when_every_picture_fails_the_exit_code_is_1_and_no_document_is_written(s3seg: Command, tmp_path: Path) -> None:
    done = s3seg("segment", tmp_path / "gone.png", "star", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "gone.png: there is no such file" in done.stderr
    assert s3seg("segment", tmp_path / "*.png", "star").exit_code == 1


def test_an_input_is_never_overwritten(s3seg: Command, folder: Path) -> None:
    street, before = folder / "street.png", (folder / "street.png").read_bytes()
    same = folder / ".." / folder.name / "street.png"
    for outputs in (["--overlay", same], ["--mask", same], ["-f", "geojson", "-o", same]):
        done = s3seg("segment", street, "car", *outputs)
        assert done.exit_code == 2
        assert "will not be overwritten" in done.stderr
    assert street.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "--jsonl"], "only one format at a time"),
        (["--json", "-f", "coco"], "only one format at a time"),
        (["-o", "found.xyz"], "cannot tell the format of found.xyz; add --format"),
        (["--overlay", "x.txt"], "--overlay writes .png"),
        (["--mask", "x.jpg"], "--mask writes .png"),
        (["--overlay", "x.png"], "is one file, and there are 2 pictures: name a folder"),
        (["--mask", "x.png"], "is one file, and there are 2 pictures: name a folder"),
        (["-f", "yolo"], "one file for each picture, and there are 2"),
        (["-f", "coco", "-o", "folder"], "is one file for all pictures"),
        (["--resume"], "name an output folder"),
        (["--resume", "--json"], "name an output folder"),
        (["--threshold", "2"], "--threshold"),
        (["--max-instances", "0"], "--max-instances"),
        (["--box", "1,2,3"], "a box is x1,y1,x2,y2"),
        (["--device", "abacus"], "abacus"),
        (["--image-size", "100"], "multiple of the patch size 16, not 100"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_do(
    s3seg: Command, folder: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = s3seg("segment", ".", "car", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert _names(folder) == {"shapes.png", "street.png"}


def test_a_prompt_that_is_too_long_is_reported_once(s3seg: Command, folder: Path) -> None:
    done = s3seg("segment", folder, "car " * 200)
    assert done.exit_code == 2
    assert done.stderr.count("rror: ") == 1


def test_a_missing_checkpoint_is_one_clear_message(s3seg: Command, picture: GetPicture) -> None:
    done = s3seg("segment", picture("street"), "car", "--checkpoint", "sam3")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "s3seg models pull sam3" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in s3seg("--debug", "segment", picture("street"), "car", "--checkpoint", "sam3").stderr


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
