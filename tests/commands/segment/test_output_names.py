"""Where outputs are written, for names and folders as people have them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.commands.running import Command, GetPicture

LATIN_1 = os.fsdecode(b"caf\xe9.png")  # a file name that is not UTF-8


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def put(picture: GetPicture):
    """Copy a picture to each of these paths."""

    def put(*paths: str) -> None:
        for path in paths:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture("street"), path)

    return put


def _files(folder: str) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_outputs_of_a_recursive_run_mirror_the_folders(s3seg: Command, put) -> None:
    put("in/a/img.png", "in/b/img.png", "in/top.png")
    outputs = ("--overlay", "drawn", "--mask", "masks", "--crops", "crops", "-f", "yolo", "-o", "labels")
    done = s3seg("segment", "in", "-r", "car", *outputs)
    assert done.exit_code == 0, done.stderr
    assert _files("labels") == {"classes.txt", "a/img.txt", "b/img.txt", "top.txt"}
    assert _files("drawn") == {"a/img.overlay.png", "b/img.overlay.png", "top.overlay.png"}
    assert _files("masks") == {"a/img.car.mask.png", "b/img.car.mask.png", "top.car.mask.png"}
    assert {"a/img.car.001.png", "b/img.car.001.png", "top.car.001.png"} <= _files("crops")


def test_mirrored_outputs_are_resumed_and_not_taken_for_pictures(s3seg: Command, put) -> None:
    put("in/a/img.png", "in/b/img.png")
    command = ("segment", "in", "-r", "car", "--overlay", "in", "--resume")
    assert s3seg(*command).exit_code == 0
    assert _files("in") == {f"{folder}/img{end}" for folder in "ab" for end in (".png", ".overlay.png")}
    done = s3seg(*command)
    assert done.exit_code == 0
    assert "2 pictures skipped" in done.stderr
    assert "left out 2 files that an earlier run wrote" in done.stderr
    Path("in/a/img.overlay.png").unlink()
    assert "1 picture skipped" in s3seg(*command).stderr


def test_links_to_one_file_are_pictures_of_their_own_in_every_output(s3seg: Command, put) -> None:
    put("store/3fa9c0d1e2")
    Path("in").mkdir()
    for name in ("frame_001.png", "frame_002.png"):
        Path("in", name).symlink_to("../store/3fa9c0d1e2")
    assert s3seg("segment", "in", "car", "-f", "yolo", "-o", "labels").exit_code == 0
    assert _files("labels") == {"classes.txt", "frame_001.txt", "frame_002.txt"}
    sources = ["in/frame_001.png", "in/frame_002.png"]
    s3seg("segment", "in", "car", "-f", "coco", "-o", "coco.json")
    coco = json.loads(Path("coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == sources
    assert {one["image_id"] for one in coco["annotations"]} == {1, 2}
    s3seg("segment", "in", "car", "-o", "found.jsonl")
    assert [json.loads(line)["source"] for line in Path("found.jsonl").read_text().splitlines()] == sources
    s3seg("segment", "in", "car", "-o", "found.csv")
    assert {row["source"] for row in csv.DictReader(io.StringIO(Path("found.csv").read_text()))} == {*sources}


@pytest.mark.parametrize(
    ("path", "is_folder"),
    [("labels", True), ("labels.v1/", True), ("labels.v1", True), ("a.b/c", True), ("x.txt", False), ("x.txt/", True)],
)
def test_a_path_is_a_folder_if_it_says_so_or_its_suffix_is_no_files(
    s3seg: Command, put, path: str, is_folder: bool
) -> None:
    put("a.png")
    done = s3seg("segment", "a.png", "car", "-f", "yolo", "-o", path)
    assert done.exit_code == 0, done.stderr
    assert Path(path).is_dir() == is_folder
    assert not is_folder or _files(path) == {"a.txt", "classes.txt"}


@pytest.mark.parametrize("option", ["--overlay", "--mask", "--crops"])
@pytest.mark.parametrize("path", ["out.v2/", "out.v2", "out.png/", "./out.2026-01-05/."])
def test_a_folder_of_pictures_may_have_a_dot_in_its_name(s3seg: Command, put, option: str, path: str) -> None:
    put("a.png", "b.png")
    done = s3seg("segment", "a.png", "b.png", "car", option, path)
    assert done.exit_code == 0, done.stderr
    assert Path(path).is_dir()


def test_one_document_in_a_file_without_suffix_that_exists(s3seg: Command, put) -> None:
    put("a.png")
    Path("found").touch()
    assert s3seg("segment", "a.png", "car", "-f", "csv", "-o", "found").exit_code == 0
    assert Path("found").read_text().startswith("source,")


def test_a_dash_as_output_is_standard_output(s3seg: Command, put) -> None:
    put("a.png")
    done = s3seg("segment", "a.png", "car", "--json", "-o", "-")
    assert done.exit_code == 0
    assert json.loads(done.stdout)[0]["prompt"] == "car"
    assert _files(".") == {"a.png"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-f", "yolo", "-o", "a.png/"], "names a folder, and a.png is a file"),
        (["--crops", "a.png"], "needs a folder, and a.png is a file"),
        (["-f", "csv", "-o", "found.csv/"], "is one file for all pictures"),
        (["--json", "-o", ""], "the path of -o is empty"),
        (["--json", "-o", "/dev/null"], "neither a file nor a folder"),
        (["--overlay", "x.tif"], "end it with a slash: x.tif/"),
        (["--overlay", "x.png", "--mask", "./x.png"], "two outputs have the same path"),
        (["--mask", "m.png", "--overlay", "m.png"], "two outputs have the same path"),
        (["--jsonl", "-o", ".s3seg-done.jsonl"], "the record of what is done"),
    ],
)
def test_paths_that_cannot_be_used_are_refused_before_anything_is_loaded(
    s3seg: Command, put, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.png")
    monkeypatch.setattr("s3seg.inference.segmenter.Segmenter.__init__", lambda *_, **__: pytest.fail("loaded"))
    done = s3seg("segment", "a.png", "car", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert _files(".") == {"a.png"}


def test_a_picture_that_is_called_like_the_file_of_classes_does_not_replace_it(s3seg: Command, put) -> None:
    put("in/classes.png", "in/Classes.PNG")
    assert s3seg("segment", "in", "car", "-f", "yolo", "-o", "out").exit_code == 0
    assert Path("out/classes.txt").read_text() == "car\n"
    labels = _files("out") - {"classes.txt"}
    assert len({name.casefold() for name in labels}) == 2
    assert all(Path("out", name).read_text().startswith("0 ") for name in labels)


def test_a_file_of_one_output_is_not_replaced_by_another(s3seg: Command, put) -> None:
    put("a.png")
    done = s3seg("segment", "a.png", "car", "--mask", "out/a.overlay.png", "--overlay", "out")
    Path("out").mkdir(exist_ok=True)
    assert done.exit_code == 2
    assert "two outputs have the same path" in done.stderr


def test_pictures_with_long_names_have_outputs(s3seg: Command, put) -> None:
    names = ["x" * 245 + ".png", "\u732b" * 80 + ".png"]
    put(*(f"in/{name}" for name in names))
    outputs = ("--mask", "masks", "-f", "yolo", "-o", "labels")
    done = s3seg("segment", "in", "red car", *outputs)
    assert done.exit_code == 0, done.stderr
    assert _files("labels") == {"classes.txt", *(name.replace(".png", ".txt") for name in names)}
    assert len(_files("masks")) == 2
    assert "2 pictures skipped" in s3seg("segment", "in", "red car", *outputs, "--resume").stderr


@pytest.mark.parametrize("format_", ["json", "jsonl", "coco", "csv", "geojson", "yolo"])
@pytest.mark.parametrize("output", ["stdout", "file", "folder"])
def test_a_name_that_is_not_utf_8_is_written_in_every_format(s3seg: Command, put, format_: str, output: str) -> None:
    if output == "folder" and format_ in ("jsonl", "coco", "csv"):
        pytest.skip("one file for all pictures")
    put(LATIN_1)
    path = {"stdout": None, "file": f"out.{format_}", "folder": "out/"}[output]
    if format_ == "yolo" and output == "file":
        path = "out.txt"
    done = s3seg("segment", LATIN_1, "car", "-f", format_, *(["-o", path] if path else []))
    assert done.exit_code == 0, done.stderr
    if output == "folder":
        ending = {"json": ".car.json", "geojson": ".geojson", "yolo": ".txt"}[format_]
        assert _files("out") - {"classes.txt"} == {LATIN_1.replace(".png", ending)}
        return
    text = Path(path).read_text() if path else done.stdout
    if format_ == "csv":
        assert {row["source"] for row in csv.DictReader(io.StringIO(text))} == {r"caf\udce9.png"}
    elif format_ != "yolo":
        assert r"caf\udce9.png" in text
        assert json.loads(text)


def test_a_name_that_is_not_utf_8_or_commands_the_terminal_is_escaped_there(s3seg: Command, put) -> None:
    names = [LATIN_1, "red\x1b[31m\n.png"]
    put(*names)
    done = s3seg("segment", *names, os.fsdecode(b"gone\xe9.png"), "car", "--overlay", "out")
    assert done.exit_code == 3
    assert r"gone\udce9.png: there is no such file" in done.stderr
    assert r"out/caf\udce9.overlay.png" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    done = s3seg("segment", *names, "car")
    assert done.exit_code == 0
    assert r"caf\udce9.png  800" in done.stdout
    assert r"red\x1b[31m\n.png  800" in done.stdout


def test_a_csv_has_a_row_for_a_picture_with_nothing_found(s3seg: Command, put) -> None:
    put("a.png")
    done = s3seg("segment", "a.png", "car", "-p", "star", "-f", "csv")
    rows = [*csv.DictReader(io.StringIO(done.stdout))]
    assert [row["instance"] for row in rows if row["prompt"] == "car"] == [str(k + 1) for k in range(len(rows) - 1)]
    assert [row for row in rows if row["prompt"] == "star"] == [
        {"source": "a.png", "prompt": "star", "instance": "0", "area": "0", "height": "640", "width": "800"}
        | dict.fromkeys(["score", "x1", "y1", "x2", "y2"], "")
    ]
