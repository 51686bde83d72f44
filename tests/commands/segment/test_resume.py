from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from s3seg import Segmentation
from tests.commands.running import Command, GetPicture


@pytest.fixture
def folder(tmp_path: Path, picture: GetPicture) -> Path:
    """a.png and b.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, drawn in (("a", "shapes"), ("b", "street")):
        shutil.copy(picture(drawn), folder / f"{name}.png")
    return folder


def _skipped(stderr: str) -> int:
    words = [line.split() for line in stderr.splitlines() if "skipped, done by an earlier run" in line]
    return int(words[0][0]) if words else 0


def test_resume_skips_pictures_whose_files_are_all_there_and_makes_what_is_missing_or_changed(
    s3seg: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("segment", folder, "star", "--overlay", out, "--crops", out / "crops", "--resume")
    assert _skipped(s3seg(*command).stderr) == 0
    assert _skipped(s3seg(*command).stderr) == 2
    (out / "a.overlay.png").unlink()
    assert _skipped(s3seg(*command).stderr) == 1
    assert (out / "a.overlay.png").is_file()
    crop = min((out / "crops").glob("a.star.*.png"))
    crop.write_bytes(b"cut off")
    assert _skipped(s3seg(*command).stderr) == 1
    assert crop.read_bytes() != b"cut off"
    shutil.copy(folder / "a.png", folder / "c.png")
    assert _skipped(s3seg(*command).stderr) == 2
    assert (out / "c.overlay.png").is_file()
    os.utime(folder / "b.png", ns=(1, 1))
    assert _skipped(s3seg(*command).stderr) == 2


@pytest.mark.parametrize(
    "other", [["-p", "car"], ["--threshold", "0.7"], ["--max-instances", "1"], ["--image-size", "192"]]
)
def test_resume_does_not_take_the_files_of_another_request_for_its_own(
    s3seg: Command, folder: Path, tmp_path: Path, other: list[str]
) -> None:
    command = ("segment", folder, "star", "--overlay", tmp_path / "out", "--resume")
    assert s3seg(*command).exit_code == 0
    assert _skipped(s3seg(*command, *other).stderr) == 0
    assert _skipped(s3seg(*command).stderr) == 0, "the files were overwritten by the run between"


def test_resume_does_not_take_the_files_of_another_checkpoint_for_its_own(
    s3seg: Command, folder: Path, tmp_path: Path
) -> None:
    from s3seg import checkpoints

    command = ("segment", folder, "star", "--overlay", tmp_path / "out", "--resume")
    assert s3seg(*command).exit_code == 0
    copy = shutil.copytree(checkpoints.resolve("embedded").path, tmp_path / "copy")
    assert _skipped(s3seg(*command, "--checkpoint", copy).stderr) == 0
    assert _skipped(s3seg(*command, "--checkpoint", copy).stderr) == 2
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert _skipped(s3seg(*command, "--checkpoint", copy).stderr) == 0


def test_crops_of_an_earlier_request_do_not_stay_among_the_new_ones(
    s3seg: Command, folder: Path, tmp_path: Path
) -> None:
    crops = tmp_path / "crops"
    s3seg("segment", folder / "a.png", "star", "--crops", crops)
    assert len(list(crops.glob("a.star.*.png"))) > 1
    own = crops / "a.star.999.png"
    own.write_bytes(b"of the user")
    s3seg("segment", folder / "a.png", "star", "--crops", crops, "--max-instances", "1")
    assert {path.name for path in crops.glob("a.star.*.png")} == {"a.star.001.png", "a.star.999.png"}


def test_a_file_of_lines_goes_on_after_a_line_that_was_cut_off(s3seg: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    command = ("segment", folder, "star", "-p", "car", "--jsonl", "-o", out, "--resume")
    assert s3seg(*command).exit_code == 0
    whole = out.read_bytes()
    assert _skipped(s3seg(*command).stderr) == 2
    assert out.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    for cut in (whole[:-1], whole[: -len(lines[3])], whole[: -len(lines[3]) - 9]):
        out.write_bytes(cut)  # b.png has one line and a part, one line, or a part
        assert _skipped(s3seg(*command).stderr) == 1
        found = [Segmentation.from_dict(json.loads(line)) for line in out.read_text().splitlines()]
        assert [(Path(one.source or "").name, one.prompt) for one in found] == [
            ("a.png", "star"),
            ("a.png", "car"),
            ("b.png", "star"),
            ("b.png", "car"),
        ]


def test_a_file_of_lines_of_another_request_is_refused_and_kept(s3seg: Command, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    s3seg("segment", folder, "star", "-o", out)
    before = out.read_bytes()
    done = s3seg("segment", folder, "car", "-o", out, "--resume")
    assert done.exit_code == 2
    assert "other prompts, options or another checkpoint" in done.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["found.jsonl", "found.json"])
def test_a_run_that_fails_before_its_first_picture_keeps_what_an_earlier_one_left(
    s3seg: Command, folder: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    assert s3seg("segment", folder, "star", "-o", out).exit_code == 0
    before = out.read_bytes()
    done = s3seg("segment", folder, "star", "-o", out, "--url", "http://127.0.0.1:9", "--token", "x")
    assert done.exit_code == 1
    assert out.read_bytes() == before
    assert s3seg("segment", folder / "a.png", "car", "-o", out).exit_code == 0
    assert b"b.png" not in out.read_bytes()


@pytest.mark.parametrize(
    ("options", "other"),
    [(("--mask",), ("--mask-kind", "binary")), (("-f", "yolo", "-o"), ("--tolerance", "2"))],
)
def test_files_of_another_kind_are_made_anew(
    s3seg: Command, folder: Path, tmp_path: Path, options: tuple[str, ...], other: tuple[str, ...]
) -> None:
    command = ("segment", folder, "star", *options, f"{tmp_path / 'out'}/", "--resume")
    assert s3seg(*command).exit_code == 0
    assert _skipped(s3seg(*command, *other).stderr) == 0
    assert _skipped(s3seg(*command, *other).stderr) == 2


def test_a_picture_that_has_changed_is_replaced_in_a_file_of_lines(
    s3seg: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.jsonl"
    command = ("segment", folder, "star", "-o", out, "--resume")
    s3seg(*command)
    shutil.copy(folder / "b.png", folder / "a.png")
    assert _skipped(s3seg(*command).stderr) == 1
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(Path(one["source"]).name for one in found) == ["a.png", "b.png"]
    assert not any(one["instances"] for one in found), "there is no star in the street"


def test_a_document_with_a_failed_picture_is_completed_by_resume(s3seg: Command, folder: Path, tmp_path: Path) -> None:
    drawn = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(b"broken")
    out = tmp_path / "found.json"
    command = ("segment", folder, "star", "-o", out, "--resume")
    assert s3seg(*command).exit_code == 3
    assert [Path(one["source"]).name for one in json.loads(out.read_text())] == ["b.png"]
    (folder / "a.png").write_bytes(drawn)
    done = s3seg(*command)
    assert (done.exit_code, _skipped(done.stderr)) == (0, 1)
    assert [Path(one["source"]).name for one in json.loads(out.read_text())] == ["a.png", "b.png"]
    assert not list(tmp_path.glob(".found*"))


def test_drawings_of_an_earlier_run_in_the_same_folder_are_not_taken_for_pictures(s3seg: Command, folder: Path) -> None:
    command = ("segment", folder, "star", "--overlay", folder, "--resume")
    assert s3seg(*command).exit_code == 0
    done = s3seg(*command)
    assert (done.exit_code, _skipped(done.stderr)) == (0, 2)
    assert {path.name for path in folder.glob("*.png")} == {"a.png", "b.png", "a.overlay.png", "b.overlay.png"}


@pytest.mark.parametrize("record", ["nested", "absolute", "malformed"])
def test_a_record_that_names_files_elsewhere_is_ignored(
    s3seg: Command, folder: Path, tmp_path: Path, record: str
) -> None:
    victim, out = tmp_path / "victim.png", tmp_path / "out"
    victim.write_bytes(b"of the user")
    out.mkdir()
    status = victim.stat()
    stamp = [status.st_size, status.st_mtime_ns]
    files = {"nested": {"../victim.png": stamp}, "absolute": {str(victim): stamp}, "malformed": ["victim.png"]}
    entry = {"kind": "overlay", "name": "a", "key": "k", "files": files[record]}
    (out / ".s3seg-done.jsonl").write_text(json.dumps(entry) + "\n")
    assert s3seg("segment", folder / "a.png", "star", "--overlay", out).exit_code == 0
    assert victim.read_bytes() == b"of the user"
