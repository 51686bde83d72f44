"""Data sets for trainers of YOLO: the layout, and labels that a reader of the format fills to the masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from s3seg.errors import InvalidRequestError
from s3seg.results.yolo_dataset import write_yolo_dataset
from tests.results.small_results import discs, empty_result, result_of

STACK = discs(80, 120, (20, 20, 15), (40, 60, 24))


def made(folder, names) -> list:
    """Results on pictures that are written to the folder; every third shows nothing."""
    rng = np.random.default_rng(0)
    results = []
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (80, 120, 3), np.uint8)).save(path)
        nothing = k % 3 == 2
        cats = empty_result((80, 120), source=str(path)) if nothing else result_of(STACK[:1], source=str(path))
        results += [cats, result_of(STACK[1:], prompt='a "big" dog: brown', source=str(path))]
    return results


def filled(label, size=(80, 120)) -> dict[int, np.ndarray]:
    """Read a label file as its format says: class, then x and y in shares of the picture."""
    masks = {}
    for line in label.read_text().splitlines():
        number, *sides = line.split()
        path = np.array(sides, np.float64).reshape(-1, 2) * size[::-1]
        assert len(path) >= 3
        canvas = np.zeros(size, np.uint8)
        cv2.fillPoly(canvas, [np.round(path * 16).astype(np.int32) - 8], 1, shift=4)
        masks[int(number)] = canvas.astype(bool)
    return masks


def test_a_data_set_mirrors_the_folders_of_the_pictures(tmp_path):
    names = [f"photos/{folder}/{k}.{suffix}" for folder in "ab" for k, suffix in enumerate(("jpg", "png", "bmp"))]
    results = made(tmp_path, names)
    done = write_yolo_dataset(results, tmp_path / "set", val=0.4)
    assert (done.train + done.val, done.instances) == (6, 10)
    content = yaml.safe_load((tmp_path / "set/data.yaml").read_text())
    assert content["names"] == {0: "cat", 1: 'a "big" dog: brown'}
    found = []
    for part in ("train", "val"):
        assert content[part] == f"images/{part}"
        pictures = sorted(path for path in (tmp_path / "set/images" / part).rglob("*") if path.is_file())
        for picture in pictures:
            below = picture.relative_to(tmp_path / "set/images" / part)
            found.append(f"photos/{below.as_posix()}")
            assert picture.read_bytes() == (tmp_path / "photos" / below).read_bytes()
            masks = filled((tmp_path / "set/labels" / part / below).with_suffix(".txt"))
            overlap = (masks[1] & STACK[1]).sum() / (masks[1] | STACK[1]).sum()
            assert overlap > 0.9
            assert (0 in masks) == ("2.bmp" not in below.name)
    assert sorted(found) == sorted(names)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_pictures_stay_in_their_part_when_others_are_added(tmp_path):
    results = made(tmp_path, [f"photos/{k}.png" for k in range(20)])
    few, many = (write_yolo_dataset(results[:n], tmp_path / f"set{n}", root=tmp_path) for n in (20, 40))

    def val(done):
        return {path.name for path in (done.folder / "images/val").rglob("*.png")}

    assert val(few)
    assert val(few) == val(many) & {f"{k}.png" for k in range(10)}


def test_labels_are_where_trainers_look_for_them_whatever_the_folders_are_called(tmp_path):
    results = made(tmp_path, ["site1/images/a.png", "site2/images/b.png"])
    write_yolo_dataset(results, tmp_path / "set", val=0)
    pictures = list((tmp_path / "set/images").rglob("*.png"))
    assert len(pictures) == 2
    for picture in pictures:  # as Ultralytics does: the last folder called "images" becomes "labels"
        before, after = str(picture).rsplit("/images/", 1)
        assert Path(f"{before}/labels/{after}").with_suffix(".txt").is_file()


@pytest.mark.parametrize("val", [0.2, 0.99])
def test_some_pictures_are_for_training(tmp_path, val):
    results = made(tmp_path, ["p/IMG_0001.png", "p/IMG_0002.png"])  # the digests of both are low
    done = write_yolo_dataset(results, tmp_path / "set", val=val)
    assert (done.train, done.val) == (1, 1)


def test_names_that_would_share_a_label_file_are_told_apart(tmp_path):
    results = made(tmp_path, ["p/x.png", "p/x.jpg", "p/X.bmp"])
    write_yolo_dataset(results, tmp_path / "set", val=0)
    labels = sorted(path.name for path in (tmp_path / "set/labels").rglob("*.txt"))
    assert labels == ["X-3.txt", "x-2.txt", "x.txt"]
    assert "val: images/train" in (tmp_path / "set/data.yaml").read_text()


def test_frames_that_results_hold_are_written_as_png(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    results = [result_of(STACK, image=image, source=f"clip.mp4#frame={k}") for k in range(2)]
    write_yolo_dataset(results, tmp_path / "set", val=0)
    pictures = sorted((tmp_path / "set/images/train").iterdir())
    assert [path.name for path in pictures] == ["clip.mp4-frame=0.png", "clip.mp4-frame=1.png"]
    assert np.array_equal(np.asarray(Image.open(pictures[0])), image)


def test_pictures_of_long_addresses_have_names_that_a_disk_takes(tmp_path):
    sources = [f"https://bucket.example.org/park.png?signature={'x' * 400}{k}" for k in range(2)]
    pictures = [replace(result_of(STACK, source=one), image=np.zeros((80, 120, 3), np.uint8)) for one in sources]
    done = write_yolo_dataset(pictures, tmp_path / "set", val=0)
    files = sorted(file.name for file in (tmp_path / "set/images/train").iterdir())
    assert len(files) == done.train == 2
    assert all(name.startswith("https---bucket.example.org-park.png") and len(name) < 100 for name in files)
    write_yolo_dataset(pictures[1:], tmp_path / "later", val=0)  # names do not depend on the other pictures
    assert {file.name for file in (tmp_path / "later/images/train").iterdir()} < set(files)


def test_pictures_can_be_linked(tmp_path):
    results = made(tmp_path, ["p/x.png"])
    write_yolo_dataset(results, tmp_path / "set", val=0, link=True)
    (link,) = (tmp_path / "set/images/train").iterdir()
    assert link.is_symlink()
    assert link.resolve() == (tmp_path / "p/x.png").resolve()


def test_a_picture_turned_by_its_orientation_has_the_size_of_the_result(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 120)).save(tmp_path / "turned.jpg", exif=exif)  # upright, it is 120 wide and 80 high
    done = write_yolo_dataset(result_of(STACK[1:], source=str(tmp_path / "turned.jpg")), tmp_path / "set", val=0)
    assert (done.train, done.instances) == (1, 1)
    found = filled(tmp_path / "set/labels/train/turned.txt")[0]
    assert (found & STACK[1]).sum() / (found | STACK[1]).sum() > 0.9


def test_what_cannot_become_a_data_set_leaves_nothing_behind(tmp_path):
    results = made(tmp_path, ["p/x.png", "p/y.png"])
    Image.new("RGB", (5, 5)).save(tmp_path / "p/y.png")
    with pytest.raises(InvalidRequestError, match=r"y\.png is \(5, 5\)"):
        write_yolo_dataset(results, tmp_path / "set")
    (tmp_path / "p/y.png").unlink()
    with pytest.raises(InvalidRequestError, match=r"y\.png is not here"):
        write_yolo_dataset(results, tmp_path / "set")
    with pytest.raises(InvalidRequestError, match="not an empty folder"):
        write_yolo_dataset(results, tmp_path / "p")
    with pytest.raises(InvalidRequestError, match="is not below"):
        write_yolo_dataset(results[:2], tmp_path / "set", root=tmp_path / "q")
    with pytest.raises(InvalidRequestError, match="no result"):
        write_yolo_dataset([], tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]
