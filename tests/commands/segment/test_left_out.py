"""What a run does not segment is told, and what cannot work is told before a model is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.running import Command, GetPicture


@pytest.fixture
def folder(tmp_path: Path, picture: GetPicture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: in/a.png, in/sub/b.png."""
    monkeypatch.chdir(tmp_path)
    Path("in/sub").mkdir(parents=True)
    shutil.copy(picture("street"), "in/a.png")
    shutil.copy(picture("street"), "in/sub/b.png")
    return tmp_path


@pytest.fixture
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3seg.inference.segmenter.Segmenter.__init__", lambda *_, **__: pytest.fail("loaded"))


@pytest.mark.usefixtures("folder")
def test_files_that_are_not_segmented_are_counted_and_named(s3seg: Command) -> None:
    for name in ("notes.txt", "clip.mp4", "README", ".hidden.txt", "sub/more.txt"):
        Path("in", name).touch()
    done = s3seg("segment", "in", "car", "--jsonl")
    assert done.exit_code == 0
    notes = [line for line in done.stderr.splitlines() if line.startswith("left out")]
    assert notes == [
        "left out 3 files (README, clip.mp4, notes.txt) without the suffix of a picture",
        "left out 1 file (b.png) in a subfolder; add -r to include them",
    ]
    for k in range(4):
        Path("in", f"{k}.txt").touch()
    for inputs in (["in", "-r"], ["in/**/*"]):
        done = s3seg("segment", *inputs, "car", "--jsonl")
        assert len(done.stdout.splitlines()) == 2
        assert "left out 8 files (6 .txt, 1 no suffix, 1 .mp4) without the suffix of a picture" in done.stderr
        assert "subfolder" not in done.stderr
    assert "left out" not in s3seg("segment", "in", "car", "--jsonl", "-q").stderr
    assert "left out" not in s3seg("segment", "in/a.png", "car", "--jsonl").stderr


@pytest.mark.usefixtures("folder")
def test_a_raw_picture_beside_a_developed_one_is_told(s3seg: Command) -> None:
    Path("in/a.dng").touch()
    done = s3seg("segment", "in", "car", "--jsonl")
    assert "left out 1 file (a.dng) a camera's raw picture beside a developed one" in done.stderr
    assert done.exit_code == 0


@pytest.mark.usefixtures("folder")
def test_a_heic_picture_in_a_folder_is_an_error_that_says_what_it_needs(s3seg: Command) -> None:
    Path("in/IMG_0001.HEIC").write_bytes(b"\0\0\0\x1cftypheic" + bytes(20))
    done = s3seg("segment", "in", "car", "--jsonl")
    assert done.exit_code == 3
    assert "in/IMG_0001.HEIC" in done.stderr
    assert "HEIC" in done.stderr.replace("IMG_0001.HEIC", "")


@pytest.mark.usefixtures("folder", "_no_model")
def test_a_missing_picture_is_told_before_a_model_is_loaded(s3seg: Command) -> None:
    Path("dangling.png").symlink_to("nowhere.png")
    done = s3seg("segment", "gone.png", "dangling.png", "car", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == ("error: gone.png: there is no such file\nerror: dangling.png: there is no such file\n")
    assert s3seg("segment", "gone.png", "car", "-o", "found.json").exit_code == 1
    assert {path.name for path in Path().iterdir()} == {"in", "dangling.png"}


@pytest.mark.usefixtures("folder")
def test_a_missing_picture_does_not_stop_the_others(s3seg: Command) -> None:
    done = s3seg("segment", "gone.png", "in/a.png", "car", "-o", "found.jsonl", "--resume")
    assert done.exit_code == 3
    assert len(Path("found.jsonl").read_text().splitlines()) == 1
    assert (
        "1 picture skipped" in s3seg("segment", "gone.png", "in/a.png", "car", "-o", "found.jsonl", "--resume").stderr
    )


@pytest.mark.usefixtures("folder", "_no_model")
@pytest.mark.parametrize("threshold", ["nan", "inf", "-0.1", "1.5"])
def test_a_threshold_that_is_no_score_is_refused(s3seg: Command, threshold: str) -> None:
    done = s3seg("segment", "in/a.png", "car", f"--threshold={threshold}")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--threshold" in done.stderr


@pytest.mark.usefixtures("folder")
def test_a_linked_subfolder_is_searched_and_a_circle_ends(s3seg: Command) -> None:
    Path("tree").mkdir()
    Path("tree/sub").symlink_to("../in/sub")
    Path("tree/again").symlink_to(".")
    done = s3seg("segment", "tree", "car", "-r", "-f", "yolo", "-o", "out")
    assert done.exit_code == 0
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("*.txt")} == {"classes.txt", "sub/b.txt"}
