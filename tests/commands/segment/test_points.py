"""``s3seg segment photo.png --point X,Y``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import s3seg
from tests.commands.running import command
from tests.helpers.clickable import write_checkpoint_without_clicks, write_clickable_checkpoint

STREET = Path(__file__).parents[3] / "examples" / "pictures" / "street.png"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_clickable_checkpoint(tmp_path_factory.mktemp("clickable") / "c")


def test_points_give_what_the_library_gives(checkpoint):
    found = command(
        "segment", STREET, "--point", "400,300", "--not-point", "10,20.5", "--box", "300,200,500,400", "--json",
        "--checkpoint", checkpoint, "--device", "cpu",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    (one,) = json.loads(found.stdout)
    expected = s3seg.Segmenter(checkpoint, device="cpu").click(
        STREET, [(400, 300), (10, 20.5)], [1, 0], box=(300, 200, 500, 400)
    )
    assert s3seg.Segmentation.from_dict(one).rles == expected.rles


def test_the_label_map_of_a_click_is_written(checkpoint, tmp_path):
    mask = tmp_path / "mask.png"
    found = command("segment", STREET, "--point", "400,300", "--mask", mask, "--checkpoint", checkpoint)
    assert found.exit_code == 0, found.stderr
    assert mask.stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["car", "--point", "1,2"], "the prompt 'car' cannot be used with points"),
        (["--point", "1,2", "--negative-box", "1,2,3,4"], "--negative-box cannot be used with points"),
        (["--point", "1,2", "--threshold", "0.4"], "--threshold cannot be used with points"),
        (["--point", "1;2"], "a point is x,y in pixels"),
        (["--not-point", "inf,2"], "a point is x,y in pixels"),
        (["--point", "4000,2"], "4000,2 is not inside the picture"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(checkpoint, arguments, says):
    found = command("segment", STREET, *arguments, "--checkpoint", checkpoint)
    assert found.exit_code == 2 or found.exit_code == 1
    assert says in " ".join(found.stderr.split())


def test_a_checkpoint_without_a_head_is_refused_by_the_command(tmp_path):
    headless = write_checkpoint_without_clicks(tmp_path / "headless")
    found = command("segment", STREET, "--point", "400,300", "--checkpoint", headless)
    assert found.exit_code != 0
    assert "has no head for clicks" in " ".join(found.stderr.split())
