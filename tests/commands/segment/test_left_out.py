"""What a run does not segment is told, and what cannot work is told before a model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("prompts", [["car, tree"], ["car", "-p", "car, tree"]])
def test_a_list_of_things_in_one_prompt_gets_one_hint_with_the_command(s3seg: Command, prompts: list[str]) -> None:
    done = s3seg("segment", "in/a.png", *prompts, "--jsonl", "-q")
    assert done.exit_code == 0
    hints = [line for line in done.stderr.splitlines() if "one thing" in line]
    assert hints == [
        "hint: 'car, tree' is searched for as one thing; for several, give each its own prompt: "
        "s3seg segment in/a.png car -p tree"
    ]


@pytest.mark.usefixtures("folder")
def test_what_is_lost_in_reading_is_told_once_for_all_pictures(s3seg: Command) -> None:
    with Image.open("in/a.png") as picture:
        for k in range(5):
            picture.convert("RGB").save(f"{k}.tif", save_all=True, append_images=[picture.convert("RGB")] * 2)
    done = s3seg("segment", "[0-4].tif", "in/a.png", "car", "--jsonl")
    assert done.exit_code == 0
    (note,) = [line for line in done.stderr.splitlines() if "page" in line]
    assert note == "0.tif, 1.tif, 2.tif and 2 more: only page 1 of 3 was read"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["notes"] for line in lines] == [["only page 1 of 3 was read"]] * 5 + [[]]


@pytest.mark.usefixtures("folder", "_no_model")
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "txt", "geojson"])
def test_results_of_a_run_are_not_taken_for_pictures(s3seg: Command, suffix: str) -> None:
    Path(f"found.{suffix}").write_text('[{"format": "s3seg.segmentation/1", "source": "a.png"}]\n')
    done = s3seg("segment", f"found.{suffix}", "car")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: found.{suffix}: this is a file of results or labels, not a picture")


@pytest.mark.usefixtures("folder")
def test_a_picture_with_the_suffix_of_results_is_a_picture(s3seg: Command) -> None:
    shutil.copy("in/a.png", "a.json")
    assert s3seg("segment", "a.json", "car").exit_code == 0
