from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3seg.commands.demo.command import PICTURE
from tests.commands.running import Command, GetPicture


def test_in_an_empty_folder_it_draws_a_picture_of_its_own_and_says_what_and_where(
    s3seg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty := tmp_path / "empty").mkdir()
    monkeypatch.chdir(empty)
    done = s3seg("demo")
    assert done.exit_code == 0, done.stderr
    drawn = empty / "s3seg-demo.png"
    assert done.stdout == f"{drawn}\n"
    assert f"looking for tree, sun, cloud in {PICTURE}" in done.stderr
    assert "4 instances in 1 picture" in done.stderr
    assert "for photographs: s3seg models pull litetext" in done.stderr
    with Image.open(drawn) as image, Image.open(PICTURE) as original:
        assert image.size == original.size
        changed = (np.asarray(image.convert("RGB")) != np.asarray(original.convert("RGB"))).any(axis=-1)
    assert 0.05 < changed.mean() < 0.95


def test_it_draws_where_it_is_told_and_makes_the_folder(s3seg: Command, tmp_path: Path) -> None:
    done = s3seg("demo", "-o", tmp_path / "out" / "demo.png")
    assert done.stdout == f"{tmp_path / 'out' / 'demo.png'}\n"
    done = s3seg("demo", "--output", tmp_path / "out")
    assert done.stdout == f"{tmp_path / 'out' / 's3seg-demo.png'}\n"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"demo.png", "s3seg-demo.png"}


def test_its_picture_is_the_park_of_the_examples(picture: GetPicture) -> None:
    with Image.open(PICTURE) as ours, Image.open(picture("park")) as example:
        assert np.array_equal(np.asarray(ours.convert("RGB")), np.asarray(example.convert("RGB")))


def test_the_command_that_it_suggests_finds_something(s3seg: Command, tmp_path: Path) -> None:
    done = s3seg("demo", "-o", tmp_path / "demo.png")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("try another word: s3seg ")]
    found = s3seg(*shlex.split(line.partition(": s3seg ")[2]))
    assert "animal" in found.stdout
    assert "not found" not in found.stdout
