"""Exports keep pictures apart by what they are, and keep the results of one picture together."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from s3seg.errors import InvalidRequestError
from s3seg.results import export, masks
from s3seg.results.pictures import group_by_picture
from s3seg.results.segmentation import Segmentation
from tests.results.small_results import discs, empty_result, result_of

STACK = discs(40, 60, (10, 10, 8), (20, 30, 12), (30, 50, 4))
FRAMES = [result_of(STACK, image_id=f"pixels:{digest}:{k}") for k, digest in enumerate(("aa", "bb", "cc"), start=1)]


def names_of(results: object) -> list[str]:
    return [image["file_name"] for image in export.coco(results)["images"]]


def test_pictures_without_a_name_are_separate_in_every_export():
    names = names_of(FRAMES)
    assert names == ["image-aa", "image-bb", "image-cc"]
    assert [a["image_id"] for a in export.coco(FRAMES)["annotations"]] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert export.pandas(FRAMES)["image"].unique().tolist() == names
    each = [name for name in names for _ in range(3)]
    assert [row["source"] for row in csv.DictReader(io.StringIO(export.csv(FRAMES)))] == each
    assert [feature["properties"]["image"] for feature in export.geojson(FRAMES)["features"]] == each
    assert export.yolo_files(FRAMES) == {name: FRAMES[0].to_yolo() for name in names}
    for function in (export.yolo, export.supervision, export.png_label_map):
        with pytest.raises(InvalidRequestError, match="3 pictures, such as image-aa and image-bb"):
            function(FRAMES)


def test_the_name_of_a_picture_is_the_same_in_an_export_of_its_own():
    assert [name for frame in FRAMES for name in names_of(frame)] == names_of(FRAMES)


def test_results_of_several_prompts_on_one_picture_are_one_picture():
    cats, dogs = FRAMES[0], result_of(STACK, prompt="dog", image_id=FRAMES[0].image_id)
    assert names_of([cats, FRAMES[1], dogs]) == ["image-aa", "image-bb"]
    assert export.supervision([cats, dogs])["class_name"].tolist() == ["cat"] * 3 + ["dog"] * 3
    assert export.yolo([cats, dogs]) == cats.to_yolo() + dogs.to_yolo(class_id=1)


def test_identity_survives_json_and_the_loss_of_the_pixels():
    stored = json.loads(json.dumps([frame.to_dict() for frame in [*FRAMES, FRAMES[0]]]))
    assert names_of(map(Segmentation.from_dict, stored)) == names_of(FRAMES)


def test_a_result_saved_before_there_were_ids_can_be_read():
    stored = FRAMES[0].to_dict()
    del stored["image_id"]
    assert Segmentation.from_dict(stored).image_id is None


def test_a_picture_encoded_twice_for_two_prompts_is_one_picture():
    again = result_of(STACK, prompt="dog", image_id="pixels:aa:9")
    assert names_of([FRAMES[0], again]) == ["image-aa"]


def test_equal_frames_of_a_video_are_as_many_pictures():
    prompts = ("cat", "dog")
    frames = [result_of(STACK, prompt=prompt, image_id=f"pixels:aa:{k}") for k in (1, 2, 3) for prompt in prompts]
    assert names_of(frames) == ["image-aa", "image-aa-2", "image-aa-3"]
    assert [len(picture.results) for picture in group_by_picture(frames)] == [2, 2, 2]


def test_a_file_that_changed_between_two_results_is_two_pictures():
    results = [result_of(STACK, source="cam/snap.jpg", image_id=f"pixels:{digest}") for digest in ("aa", "bb", "aa")]
    assert names_of(results) == ["cam/snap.jpg", "cam/snap-2.jpg"]
    smaller = result_of(STACK[:, :20], source="cam/snap.jpg", image_id="pixels:cc")
    assert len(names_of([*results, smaller])) == 3


def test_results_of_the_library_and_of_a_service_for_one_file_are_one_picture():
    results = [result_of(STACK, source="a.jpg", image_id=one) for one in ("pixels:aa", "file:bb", None)]
    assert names_of(results) == ["a.jpg"]


def test_a_made_up_name_never_takes_the_name_of_another_picture():
    named = result_of(STACK, source="image-aa", image_id="pixels:dd")
    assert names_of([named, FRAMES[0]]) == ["image-aa", "image-aa-2"]
    assert names_of([FRAMES[0], named]) == ["image-aa", "image-aa-2"]


def test_every_export_takes_one_result_or_any_nesting_of_them():
    one = FRAMES[0]
    for function in (export.coco, export.geojson, export.yolo, export.yolo_files, export.csv, export.png_label_map):
        assert function(one) == function([one]) == function([[one]]) == function(iter((one,)))
    assert export.pandas(one).equals(export.pandas([[one]]))
    assert np.array_equal(export.supervision(one).mask, export.supervision([one]).mask)


@pytest.mark.parametrize("wrong", [None, 7, "park.png", {"a": 1}, [("park.png", FRAMES[0])], FRAMES[0][0]])
def test_what_is_not_a_result_is_refused(wrong):
    with pytest.raises(InvalidRequestError, match="expected a Segmentation or several"):
        export.coco(wrong)


def test_no_results_at_all_give_an_empty_document():
    assert export.coco([])["images"] == export.coco([])["annotations"] == []
    assert export.geojson([])["features"] == []
    assert export.yolo([]) == ""
    assert export.yolo_files([]) == {}
    assert len(export.pandas([])) == len(export.supervision([])) == 0
    assert len(export.csv([]).splitlines()) == 1
    with pytest.raises(InvalidRequestError, match="at least one result"):
        export.png_label_map([])


# ---- pictures with nothing on them ----

NOTHING = empty_result((40, 60), prompt="dog", source="empty.png")


def test_an_empty_result_keeps_its_columns_and_types():
    full, empty = export.pandas(FRAMES[0]), export.pandas(NOTHING)
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    detections = NOTHING.to_supervision()
    assert detections["class_name"].shape == (0,)
    assert detections["class_name"].dtype.kind == "U"
    assert detections.mask.shape == (0, 40, 60)
    assert detections.confidence.shape == detections.class_id.shape == (0,)
    assert export.coco(NOTHING)["categories"] == [{"id": 1, "name": "dog"}]
    assert export.coco(NOTHING)["images"] == [{"id": 1, "file_name": "empty.png", "height": 40, "width": 60}]
    assert export.geojson(NOTHING)["prompts"] == ["dog"]
    assert export.geojson(NOTHING)["images"] == [{"name": "empty.png", "height": 40, "width": 60}]
    assert export.csv(NOTHING) == export.csv([])
    assert export.yolo_files(NOTHING) == {"empty.png": ""}


def test_frames_with_and_without_instances_can_be_put_together():
    import pandas as pd
    import supervision as sv

    merged = sv.Detections.merge([NOTHING.to_supervision(), FRAMES[0].to_supervision()])
    assert merged["class_name"].tolist() == ["cat"] * 3
    table = pd.concat([export.pandas(NOTHING), export.pandas(FRAMES[0])])
    assert table.dtypes.to_dict() == export.pandas(FRAMES[0]).dtypes.to_dict()


def test_pictures_with_nothing_can_be_counted():
    results = [FRAMES[0], NOTHING]
    table = export.pandas(results, empty_rows=True)
    assert table.dtypes.to_dict() == export.pandas(results).dtypes.to_dict()
    counts = table.groupby(["image", "prompt"])["score"].count()
    assert counts.to_dict() == {("image-aa", "cat"): 3, ("empty.png", "dog"): 0}
    assert len(export.pandas(results)) == 3

    rows = list(csv.DictReader(io.StringIO(export.csv(results, empty_rows=True))))
    assert rows[-1] == dict.fromkeys(rows[0], "") | {
        "source": "empty.png",
        "prompt": "dog",
        "area": "0",
        "height": "40",
        "width": "60",
    }
    assert len(rows) == 4
    assert [int(row["area"]) for row in rows[:3]] == [masks.area(rle) for rle in FRAMES[0].rles]
