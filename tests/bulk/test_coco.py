"""The merged COCO dataset is what the export of the library makes of the same results, and is made as a stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO

import s3seg
from s3seg.bulk import results, run_folder
from s3seg.bulk.coco import coco_text
from s3seg.bulk.job import carry_out
from s3seg.bulk.manifest import Listed
from s3seg.bulk.shard_job import ShardJob
from s3seg.bulk.storage import Folder
from tests.bulk.pretend import CORRUPT, PretendEngine, PretendNetwork, make_pictures, request_for, start_run

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
def test_it_is_what_the_export_makes_and_pycocotools_reads_it(tmp_path):
    paths = sorted(PICTURES.glob("*.png"))
    prompts = ("tree", "star", "unicorn")
    seg = s3seg.Segmenter("embedded", device="cpu")
    run = run_folder.start(
        Folder.at(tmp_path),
        str(PICTURES),
        request_for(*prompts),
        pictures=lambda: [Listed(str(path)) for path in paths],
        shard_rows=3,
    )
    job = ShardJob(run=run, load=lambda request, device: seg)
    carry_out(job, PretendEngine)
    path = tmp_path / "coco.json"
    path.write_text("".join(coco_text(run)))
    ours = json.loads(path.read_text())
    expected = s3seg.export.coco([found for _, found in seg.segment_many(map(str, paths), prompts)])
    for annotation in expected["annotations"]:
        annotation["image_id"] -= 1  # ids of rows begin with 0
    for image in expected["images"]:
        image["id"] -= 1
    assert ours == expected
    read = COCO(path)
    assert len(read.getAnnIds()) == len(ours["annotations"]) > 3
    for number in read.getAnnIds():
        annotation = read.loadAnns([number])[0]
        mask = read.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        x, y, width, height = map(int, annotation["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        (image,) = read.loadImgs([annotation["image_id"]])
        assert mask.shape == (image["height"], image["width"])


def test_pictures_with_errors_and_shards_that_are_not_done_are_left_out(tmp_path):
    run = start_run(make_pictures(tmp_path / "p", 12, {1: CORRUPT}), tmp_path / "out")
    engine = PretendEngine(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(ShardJob(run=run, load=lambda request, device: PretendNetwork()), lambda: engine)
    dataset = json.loads("".join(coco_text(run)))
    assert [image["id"] for image in dataset["images"]] == [0, 2, 3, 4, 5, 6, 7]
    assert len(dataset["annotations"]) == 14
    assert [category["name"] for category in dataset["categories"]] == ["cat", "dog"]


def test_one_shard_is_read_at_a_time(tmp_path, monkeypatch):
    run = start_run(make_pictures(tmp_path / "p", 12), tmp_path / "out")
    carry_out(ShardJob(run=run, load=lambda request, device: PretendNetwork()), PretendEngine)
    read, asked = results.read, []
    monkeypatch.setattr(results, "read", lambda out, shard, columns: asked.append(shard) or read(out, shard, columns))
    pieces = coco_text(run)
    for piece in pieces:
        if '"id": 4,' in piece:
            break
    assert asked == [0, 1]
    assert len("".join(pieces)) > 0
    assert asked == [0, 1, 2, 0, 1, 2]
