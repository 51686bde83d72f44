"""Rows hold what `Segmenter` finds, and the library's own sentences where it finds no picture."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask

import s3seg
from s3seg import images
from s3seg.bulk.segmenting import PictureFile, Segment, load_segmenter, segment_rows
from s3seg.bulk.storage import S3Access
from s3seg.errors import ConfigurationError, ImageDecodeError, InvalidRequestError, PromptError
from tests.bulk.pretend import request_for

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
PROMPTS = ("tree", "star", "cloud")


@pytest.fixture(scope="module")
def segmenter():
    return load_segmenter(request_for(*PROMPTS), "cpu")


def files(*paths) -> list[PictureFile]:
    return [PictureFile(str(path), S3Access()) for path in paths]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
def test_a_row_holds_what_segmenter_finds(segmenter):
    park = PICTURES / "park.png"
    (row,) = segment_rows(segmenter, files(park), request_for(*PROMPTS))
    expected = segmenter.segment(park, PROMPTS)
    assert (row["height"], row["width"], row["error"]) == (*expected[0].size, None)
    assert row["sha256"] == hashlib.sha256(park.read_bytes()).hexdigest()
    found = [(one.prompt, one.score, one.box, one.area) for result in expected for one in result]
    assert [(one["prompt"], one["score"], tuple(one["box"]), one["area"]) for one in row["instances"]] == found
    assert len(found) == 3
    for one in row["instances"]:
        rle = {"size": [row["height"], row["width"]], "counts": one["counts"].encode()}
        assert coco_mask.area(rle) == one["area"] == coco_mask.decode(rle).sum()


def test_threshold_and_number_are_those_of_the_request(segmenter):
    request = request_for("tree", threshold=0.01, max_instances=1)
    (row,) = segment_rows(segmenter, files(PICTURES / "park.png"), request)
    (best,) = segmenter.segment(PICTURES / "park.png", "tree", threshold=0.01, max_instances=1)
    assert [one["score"] for one in row["instances"]] == [best.score]


def test_rows_come_in_the_order_of_the_pictures_with_errors_in_their_place(segmenter, tmp_path):
    page = tmp_path / "page.png"
    page.write_bytes(b"<!doctype html><html></html>")
    cut = tmp_path / "cut.png"
    cut.write_bytes((PICTURES / "park.png").read_bytes()[:5000])
    paths = [page, PICTURES / "shapes.png", tmp_path / "none.png", tmp_path, cut, PICTURES / "park.png"]
    rows = segment_rows(segmenter, files(*paths), request_for("tree"))
    for path, row in zip(paths, rows, strict=True):
        if path.parent == PICTURES:
            assert row["error"] is None
            continue
        with pytest.raises(ImageDecodeError) as error:
            images.load(path)
        assert (row["error"], row["instances"], row["height"]) == (str(error.value), [], None)
    assert rows[0]["sha256"] == hashlib.sha256(page.read_bytes()).hexdigest()
    assert rows[2]["sha256"] is None


def test_a_prompt_that_no_picture_could_be_asked_is_no_error_of_a_picture(segmenter):
    long = " ".join(["word"] * 200)
    with pytest.raises(PromptError):
        segment_rows(segmenter, files(PICTURES / "park.png"), request_for(long))


def test_a_stage_adds_columns_to_a_batch_of_addresses(monkeypatch):
    stage = Segment(["tree", "star"], checkpoint="embedded", device="cpu")
    batch = pa.table({"name": ["a", "b"], "uri": [str(PICTURES / "park.png"), "/nowhere.png"]})
    table = stage(batch)
    assert table.column_names == ["name", "uri", "sha256", "height", "width", "error", "instances"]
    assert table["error"].to_pylist() == [None, "/nowhere.png: there is no such file"]
    assert {one["prompt"] for one in table["instances"][0].as_py()} == {"tree"}
    assert table.schema == stage(batch.slice(1)).schema == stage(batch.slice(0, 0)).schema


def test_a_stage_takes_bytes_too():
    stage = Segment("tree", checkpoint="embedded", device="cpu")
    content = (PICTURES / "park.png").read_bytes()
    table = stage(pa.table({"bytes": [content, b"no picture"]}))
    assert table["sha256"][0].as_py() == hashlib.sha256(content).hexdigest()
    assert table["error"][1].as_py().startswith("picture 2: ")


@pytest.mark.parametrize("batch", [{"uri": ["/a.png"]}, pa.table({"image": ["/a.png"]})])
def test_a_stage_says_what_it_takes(batch):
    stage = Segment("tree", checkpoint="embedded", device="cpu")
    with pytest.raises(InvalidRequestError, match=r"batch_format=\"pyarrow\"|needs a column uri or bytes"):
        stage(batch)


def test_the_names_of_the_package_are_there():
    assert s3seg.bulk.Segment is Segment
    assert s3seg.bulk.S3Access is S3Access
    with pytest.raises(AttributeError, match="Sgement"):
        _ = s3seg.bulk.Sgement


def test_keys_are_in_no_representation():
    access = S3Access("https://s3.example.org", "an-access-key", "a-secret")
    assert "secret" not in repr(access)
    assert "access-key" not in repr(access)
    with pytest.raises(ConfigurationError, match="needs its secret"):
        S3Access(access_key_id="only-this")
