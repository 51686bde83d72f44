"""Concepts that a service keeps find what `Segmenter` finds with the same examples."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest

import s3seg
from s3seg.app import local_keys, whole_app
from s3seg.app.settings import Settings
from s3seg.client import AsyncClient
from s3seg.errors import InferenceError, InvalidRequestError, NotFoundError
from s3seg.results import masks

pytestmark = pytest.mark.anyio
PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
PARK, STREET = PICTURES / "park.png", PICTURES / "street.png"


def boxes_of(picture: Path, label: str) -> list[tuple[float, ...]]:
    instances = json.loads(picture.with_suffix(".json").read_text())["instances"]
    return [masks.box(masks.from_coco(one["segmentation"])) for one in instances if one["label"] == label]


EXAMPLES = [(PARK, boxes_of(PARK, "tree")[:1], boxes_of(PARK, "sun"))]


def settings(**options) -> Settings:
    chosen = {"decode_processes": 0, **options}  # none to start: test_in_process.py has them
    return Settings(_env_file=None, checkpoint="embedded", device="cpu", rate_limits="off", **chosen)


@pytest.fixture(scope="module")
def expected() -> dict[str | None, s3seg.Segmentation]:
    seg = s3seg.Segmenter("embedded", device="cpu")
    return {words: seg.segment(STREET, seg.concept(words, EXAMPLES, name="my tree")) for words in (None, "tree")}


def same(found: s3seg.Segmentation, expected: s3seg.Segmentation) -> None:
    """Equal but for the last bits: pictures are encoded together here, and one by one there."""
    assert (found.prompt, found.size, found.threshold) == ("my tree", expected.size, expected.threshold)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert (masks.iou(list(found.rles), list(expected.rles)).max(axis=1) > 0.999).all()
    assert found.hint == expected.hint


async def test_local_finds_what_a_segmenter_finds(expected):
    async with s3seg.local(settings(object_store="memory", task_store="memory", welcome_credits=100)) as service:
        for words in (None, "tree"):
            concept = await service.create_concept("my tree", EXAMPLES, words=words)
            same(await service.segment_concept(STREET, concept.concept_id), expected[words])
        assert len(await service.concepts()) == 2
        await service.delete_concept(concept.concept_id)
        with pytest.raises(NotFoundError):
            await service.segment_concept(STREET, concept.concept_id)


async def test_a_client_makes_uses_lists_and_deletes_concepts(expected, tmp_path):
    chosen = settings(data_dir=tmp_path, public_base_url="http://edge.example/files")
    app = whole_app(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        ann, bob = (
            AsyncClient("http://edge.example", local_keys(chosen).mint(name), http=http) for name in ("ann", "bob")
        )
        credits = (await ann.me()).credits
        made = [await ann.create_concept("my tree", EXAMPLES, words=words) for words in (None, "tree")]
        for concept, words in zip(made, (None, "tree"), strict=True):
            assert (concept.name, concept.words) == ("my tree", words)
            assert [list(box) for box in concept.examples[0].boxes] == [list(box) for box in EXAMPLES[0][1]]
            same(await ann.segment_concept(STREET, concept.id), expected[words])
        assert (await ann.me()).credits == credits - 2
        assert [one.id for one in await ann.concepts()] == [made[1].id, made[0].id]

        assert await bob.concepts() == []
        for foreign in (made[0].id, str(uuid.uuid4())):
            with pytest.raises(InvalidRequestError, match="concept_id is not one of your concepts"):
                await bob.segment_concept(STREET, foreign)
            with pytest.raises(NotFoundError, match="no such concept"):
                await bob.delete_concept(foreign)
        await ann.delete_concept(made[0].id)
        assert [one.id for one in await ann.concepts()] == [made[1].id]


async def test_examples_must_be_the_callers_and_still_be_there(tmp_path):
    chosen = settings(data_dir=tmp_path, public_base_url="http://edge.example/files")
    app = whole_app(chosen)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        tokens = {name: local_keys(chosen).mint(name) for name in ("ann", "bob")}
        ann = AsyncClient("http://edge.example", tokens["ann"], http=http)
        stored = await ann.upload(PARK)
        example = {"image_url": stored.image_url, "boxes": [[1, 2, 30, 40]]}

        async def create(who: str, **changes: object) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[who]}"}
            body = {"name": "x", "examples": [example], **changes}
            return await http.post("http://edge.example/api/v1/concepts", json=body, headers=headers)

        made = await create("ann")
        assert made.status_code == 201
        assert made.headers["location"].endswith(f"/api/v1/concepts/{made.json()['data']['id']}")
        assert (await create("bob")).json()["error"][
            "message"
        ] == "an image_url of the examples is not one of your uploads"
        for changes in (
            {"name": ""},
            {"examples": []},
            {"examples": [example] * 5},
            {"examples": [{**example, "boxes": []}]},
            {"examples": [{**example, "boxes": [[1, 2, 30, 40]] * 17}]},
            {"examples": [{**example, "boxes": [[30, 2, 1, 40]]}]},
            {"examples": [{**example, "image_url": "http://169.254.169.254/users/x/images/y.png"}]},
            {"words": " "},
        ):
            refused = await create("ann", **changes)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST"), changes

        concept_id = made.json()["data"]["id"]
        credits = (await ann.me()).credits
        outside = (await create("ann", examples=[{**example, "boxes": [[9000, 1, 9001, 2]]}])).json()["data"]["id"]
        with pytest.raises(InferenceError, match="no part of the box"):
            await ann.segment_concept(STREET, outside)
        await ann.delete_image(stored.image_id)
        with pytest.raises(InferenceError, match="the image of an example no longer exists"):
            await ann.segment_concept(STREET, concept_id)
        assert (await ann.me()).credits == credits
