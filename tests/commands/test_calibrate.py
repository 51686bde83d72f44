"""``s3seg calibrate``: from COCO or masks to a file that ``s3seg segment`` uses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from s3seg import Segmentation
from tests.commands.running import Command, GetPicture
from tests.helpers.small_things import circles


@pytest.fixture
def pictures(picture: GetPicture) -> list[Path]:
    return [picture("street"), picture("park")]


def test_coco_and_masks_give_the_same_thresholds(s3seg: Command, pictures, tmp_path):
    prompts = ("-p", "car", "-p", "tree")
    done = s3seg("segment", *pictures, *prompts, "-q", "-f", "coco", "-o", tmp_path / "coco.json")
    assert done.exit_code == 0, done.stderr
    assert s3seg("segment", *pictures, *prompts, "-q", "--mask", tmp_path / "masks").exit_code == 0
    coco, masks = tmp_path / "a.json", tmp_path / "b.json"
    done = s3seg("calibrate", tmp_path / "coco.json", "--root", "/", "-o", coco, "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["prompt", "car", "tree"]
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 800
    done = s3seg("calibrate", *pictures, "--masks", tmp_path / "masks", *prompts, "-o", masks)
    assert done.exit_code == 0, done.stderr
    thresholds = [
        {p: c["threshold"] for p, c in json.loads(path.read_text())["curves"].items()} for path in (coco, masks)
    ]
    assert thresholds[0] == thresholds[1]

    done = s3seg("segment", pictures[0], *prompts, "--calibration", coco, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    found = [Segmentation.from_dict(one) for one in json.loads(done.stdout)]
    assert {one.prompt: one.threshold for one in found} == thresholds[0]


def test_what_is_missing_is_said(s3seg: Command, pictures, tmp_path):
    for arguments, message in (
        ([pictures[0], "--masks", tmp_path], "--masks needs --prompt"),
        ([pictures[0], pictures[1]], "add --masks"),
        ([pictures[0], "--masks", tmp_path, "-p", "car"], "street.car.mask.png or"),
        ([tmp_path / "none.json", "--plot", "x.jpg"], "--plot writes .png"),
        ([pictures[0]], "is not JSON"),
    ):
        done = s3seg("calibrate", *arguments, "-o", tmp_path / "c.json")
        assert done.exit_code != 0
        assert message in done.stderr, done.stderr


def test_tiles_are_calibrated_in_tiles_and_used_with_them(s3seg: Command, tmp_path):
    picture, file = tmp_path / "small.png", tmp_path / "calibration.json"
    large = Image.new("RGB", (1400, 1400), (235, 235, 235))  # in which circles are too small to be seen without tiles
    large.paste(Image.open(io.BytesIO(circles())))
    large.save(picture)
    done = s3seg("segment", picture, "red circle", "--tile", "300", "-q", "--mask", tmp_path / "masks")
    assert done.exit_code == 0, done.stderr
    rows = {}
    for tile in (["--tile", "300"], []):
        done = s3seg("calibrate", picture, "--masks", tmp_path / "masks", "-p", "red circle", "-o", file, *tile)
        assert done.exit_code == 0, done.stderr
        rows[bool(tile)] = [float(number) for number in done.stdout.splitlines()[1].split("\t")[2:5]]
        assert json.loads(file.read_text()).get("tile") == (300 if tile else None)
        assert ("--tile 300" in done.stderr) == bool(tile)
        used = s3seg("segment", picture, "red circle", "-q", "--calibration", file, *tile)
        assert used.exit_code == 0, used.stderr
        other = s3seg("segment", picture, "red circle", "-q", "--calibration", file, "--tile", "200")
        assert other.exit_code != 0
        assert "the calibration was made with" in other.stderr
    assert rows[True][2] == 1.0  # with tiles everything is found again
    assert rows[False][2] < 1.0


def test_thresholds_tiles_and_overlaps_from_the_command_line(s3seg: Command, picture: GetPicture):
    street = picture("street")

    def found(*arguments):
        done = s3seg("segment", street, "car", "-p", "house", "--json", "-q", *arguments)
        assert done.exit_code == 0, done.stderr
        return [Segmentation.from_dict(one) for one in json.loads(done.stdout)]

    assert [one.threshold for one in found("--threshold", "car=0.9", "--threshold", "house=0.2")] == [0.9, 0.2]
    assert [one.threshold for one in found("--threshold", "0.4")] == [0.4, 0.4]
    assert sum(map(len, found("--tile", "400"))) >= 4
    apart = found("--threshold", "0.05", "--no-overlaps")
    total = sum(one.area for result in apart for one in result)
    assert total == sum((apart[0].union() | apart[1].union()).ravel())
    for arguments, message in (
        (["--threshold", "2"], "between 0 and 1"),
        (["--threshold", "nan"], "between 0 and 1"),
        (["--threshold", "bus=0.5"], "not among the prompts"),
        (["--threshold", "0.5", "--threshold", "0.6"], "one prompt each"),
        (["--tile", "-3"], "--tile is"),
        (["--threshold", "calibrated"], "s3seg calibrate"),
    ):
        done = s3seg("segment", street, "car", "-p", "house", *arguments)
        assert done.exit_code != 0
        assert message in done.stderr, done.stderr
