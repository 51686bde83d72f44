"""``s3seg concept make`` and ``s3seg segment --concept``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import s3seg
from tests.commands.running import command

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
BOX = "60,60,260,300"


def test_a_concept_that_was_made_finds_what_the_library_finds(tmp_path):
    file = tmp_path / "thing.safetensors"
    park = PICTURES / "park.png"
    made = command(
        "concept",
        "make",
        file,
        "--example",
        f"{park}:{BOX}",
        "--not-example",
        f"{park}:1,1,30,30",
        "--checkpoint",
        "embedded",
    )
    assert made.exit_code == 0, made.stderr
    assert "2 boxes on 1 picture" in " ".join(made.stderr.split())

    found = command("segment", PICTURES / "street.png", "--concept", file, "--checkpoint", "embedded", "--json")
    assert found.exit_code == 0, found.stderr
    (one,) = json.loads(found.stdout)
    seg = s3seg.Segmenter("embedded")
    concept = seg.concept(None, [(park, [(60, 60, 260, 300)], [(1, 1, 30, 30)])], name="thing")
    expected = seg.segment(PICTURES / "street.png", concept)
    assert s3seg.Segmentation.from_dict(one).rles == expected.rles
    assert one["prompt"] == "thing"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x.pt", "--example", "a.png:1,2,3,4"], "ends in .safetensors"),
        (["x.safetensors", "--example", "a.png"], "an example is written"),
        (["x.safetensors", "--example", "a.png:1,2,3"], "a box is x1,y1,x2,y2"),
        (["x.safetensors", "--example", "nowhere.png:1,2,3,4", "--checkpoint", "embedded"], "nowhere.png"),
    ],
)
def test_what_makes_no_concept_is_refused_with_the_reason(tmp_path, arguments, says):
    made = command("concept", "make", *arguments)
    assert made.exit_code != 0
    assert says in " ".join(made.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["car", "--concept", "x.safetensors"], "--concept cannot be used with a prompt"),
        (["--concept", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--concept", "x.safetensors", "--url", "http://localhost:9"], "cannot be used with --url"),
    ],
)
def test_a_concept_that_cannot_be_used_is_refused_with_the_reason(arguments, says):
    found = command("segment", PICTURES / "street.png", *arguments)
    assert found.exit_code != 0
    assert says in " ".join(found.stderr.split())
