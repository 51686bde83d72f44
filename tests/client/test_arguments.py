"""What the calls of the client take: prompts, sources, and event loops."""

import asyncio
import gc
import warnings

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from s3seg import errors
from s3seg.client import AsyncClient
from s3seg.client.arguments import check_prompts, check_sources, one_each, without_duplicates
from tests.client.test_client import ME, META, TASK, Script, ok, refused
from tests.helpers.pictures import encoded
from tests.helpers.serving import served


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("car", ["car"]),
        ("car\n", ["car"]),
        (["car ", "\u201ctree\u201d", "car"], ["car", "tree", "car"]),
        (("car",), ["car"]),
        (iter(["car"]), ["car"]),
        (np.array(["car", "tree"]), ["car", "tree"]),
        (["x"] * 100, ["x"] * 100),
    ],
)
def test_prompts_get_their_normal_form(prompt, prompts):
    assert check_prompts(prompt) == prompts


@pytest.mark.parametrize(
    "prompt", ["", " \n", "x" * 501, "a\0b", [], [f"x{n}" for n in range(17)], ["a", ""], b"car", 5, None, ["a", None]]
)
def test_what_is_no_prompt_is_refused(prompt):
    with pytest.raises(errors.PromptError):
        check_prompts(prompt)


def test_duplicates_are_asked_for_once_and_answered_each():
    prompts = ["b", "a", "b"]
    assert without_duplicates(prompts) == ("b", "a")
    assert one_each(prompts, [2, 1]) == [2, 1, 2]


@pytest.mark.parametrize("sources", ["photo.jpg", b"bytes", bytearray(b"x"), 5, None])
def test_one_image_where_several_are_meant_is_refused(sources):
    with pytest.raises(errors.InvalidRequestError, match="for one image use segment"):
        check_sources(sources)
    with pytest.raises(errors.InvalidRequestError, match="for one image use segment"):
        next(Script().client().segment_many(sources, "car"))


def test_a_submit_sends_each_prompt_once():
    script = Script(*[ok({"task_id": TASK, "status": "pending"}, 202)] * 3)
    client = script.client()
    client.submit("http://x/i.png", ["car\n", "car"])
    client.submit("http://x/i.png", ["dog", "car", "dog"])
    client.submit("http://x/i.png", "car, tree")
    sent = [httpx.Response(200, content=request.content).json() for request in script.requests]
    assert sent[0] == {"image_url": "http://x/i.png", "text_prompt": "car"}
    assert sent[1] == {"image_url": "http://x/i.png", "text_prompts": ["dog", "car"]}
    assert sent[2] == {"image_url": "http://x/i.png", "text_prompt": "car, tree"}


def test_prompts_of_an_iterator_are_for_every_image():
    script = Script(*[refused("INVALID_REQUEST")] * 2)
    failed = []
    many = script.client().segment_many(
        [encoded(), encoded()], iter(["car"]), batch_size=1, on_error=lambda *what: failed.append(what)
    )
    assert list(many) == []
    assert [type(error) for _, error in failed] == [errors.InvalidRequestError] * 2  # not PromptError


class TestEventLoops:
    @pytest.fixture
    def url(self):
        body = {"success": True, "data": ME, "error": None, "meta": META}
        with served(Starlette(routes=[Route("/api/v1/me", lambda _: JSONResponse(body))])) as url:
            yield url

    @pytest.fixture(autouse=True)
    def connections_of_ended_loops(self):
        """They are closed by the garbage collector, which may say so."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()

    def test_a_client_works_in_several_event_loops(self, url):
        client = AsyncClient(url, "t")
        assert [asyncio.run(client.me()).credits for _ in range(3)] == [3, 3, 3]

    def test_a_client_that_was_given_an_http_client_says_that_it_is_of_another_event_loop(self, url):
        client = AsyncClient(url, "t", http=httpx.AsyncClient())
        asyncio.run(client.me())
        with pytest.raises(errors.ConfigurationError, match="another event loop"):
            asyncio.run(client.me())

    def test_a_closed_client_says_so(self):
        async def use_after_close():
            async with AsyncClient("http://edge.example", "t") as client:
                pass
            await client.me()

        with pytest.raises(RuntimeError, match="closed"):
            asyncio.run(use_after_close())
