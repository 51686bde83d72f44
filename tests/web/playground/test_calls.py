"""service.js: what the page says to the service, and how long it waits."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from s3seg.app import edge_app, local_keys
from s3seg.app.settings import Settings
from tests.helpers.pictures import encoded
from tests.helpers.serving import served

SERVICE = """
import { Service } from "./service.js";
const picture = () => new File([Uint8Array.from(input.picture)], "a.png", { type: "image/png" });
const outcome = (promise) => promise.then((value) => ({ value }), (error) => ({ error: { ...error, name: error.name,
  message: error.message } }));
const service = new Service(input);
"""


@pytest.fixture
def call(run_node):
    """Runs code with `service`, made for a service and a token."""

    def run(code, home, token, *, public_base="", **more):
        value = {"home": home, "token": token, "publicBase": public_base, "picture": list(encoded()), **more}
        return run_node(SERVICE + code, value)

    return run


def credits_of(service, name):
    return asyncio.run(service.credits(name))


def test_things_are_found_and_paid_for(call, service):
    said = call(
        "const image = await service.upload(picture()); const states = [];"
        "const hooks = { onStatus: (state) => states.push(state) };"
        "const result = await service.find(image.image_url, { words: ['cat', 'dog'] }, hooks);"
        "const stored = await service.instances(result);"
        "const mask = await service.object(result.mask_image_url);"
        "print({ states, stored, result, mask: [mask.type, mask.size], me: await service.me() });",
        service.home,
        service.token("finder"),
        public_base=service.public_base,
    )
    assert said["states"][0] == "pending"
    assert set(said["states"]) <= {"pending", "processing"}
    assert said["result"]["labels"] == ["cat", "dog"]
    assert said["stored"]["threshold"] == 0.5
    assert [one["prompt"] for one in said["stored"]["results"]] == ["cat", "dog"]
    assert said["stored"]["results"][0]["instances"][0]["rle"]["size"] == [6, 8]
    assert said["mask"][0] == "image/png"
    assert said["me"]["credits"] == 8


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("print(await outcome(new Service({ ...input, token: 'wrong' }).me()));", 401, "AUTH_INVALID"),
        ("print(await outcome(service.upload(new File(['no picture'], 'a.png'))));", 400, "INVALID_REQUEST"),
        (
            "print(await outcome(service.find('https://cdn.example/x.png', { words: ['cat'] })));",
            400,
            "INVALID_REQUEST",
        ),
        (
            "const image = await service.upload(picture());"
            "const words = Array.from({ length: 11 }, (_, k) => `cat ${k}`);"
            "print(await outcome(service.find(image.image_url, { words })));",
            402,
            "INSUFFICIENT_CREDITS",
        ),
        ("print(await outcome(service.object(`${input.publicBase}/users/u/none.json`)));", 404, "NOT_FOUND"),
    ],
)
def test_a_refusal_comes_in_the_services_own_words(call, service, code, status, error):
    said = call(code, service.home, service.token("refused"), public_base=service.public_base)["error"]
    assert (said["name"], said["status"], said["code"]) == ("ServiceError", status, error)
    assert len(said["message"]) > 10
    assert len(said["requestId"]) == 36
    assert said["retryAfter"] is None


def test_who_stops_waiting_gets_the_credits_back(call, idle_service):
    said = call(
        "const stopping = new AbortController();"
        "const image = await service.upload(picture());"
        "const waiting = service.find(image.image_url, { words: ['cat', 'dog'] },"
        "  { onStatus: () => stopping.abort(), signal: stopping.signal });"
        "print(await outcome(waiting));",
        idle_service.home,
        idle_service.token("stopper"),
    )
    assert said["error"]["name"] == "AbortError"
    assert credits_of(idle_service, "stopper") == 10


def test_who_stops_before_there_is_a_task_pays_nothing_either(call, idle_service):
    said = call(
        "const stopping = new AbortController();"
        "const image = await service.upload(picture());"
        "const waiting = service.find(image.image_url, { words: ['cat'] }, { signal: stopping.signal });"
        "stopping.abort(); print(await outcome(waiting));",
        idle_service.home,
        idle_service.token("quick"),
    )
    assert said["error"]["name"] == "AbortError"
    assert credits_of(idle_service, "quick") == 10


def test_a_limit_is_waited_for_and_said(call, idle_service):
    said = call(
        "const image = await service.upload(picture()); const told = []; const stopping = new AbortController();"
        "const onWait = (seconds, error) => { told.push([seconds, error.code, error.status]); stopping.abort(); };"
        "const waiting = new Service({ ...input, onWait }); const asked = { words: ['cat'] };"
        "const ask = () => { const each = new AbortController();"
        "  const hooks = { onStatus: () => each.abort(), signal: each.signal };"
        "  return outcome(service.find(image.image_url, asked, hooks)); };"
        "for (let k = 0; k < 5; k++) await ask();"  # the contract's limit for a free user
        "print([told, await outcome(waiting.find(image.image_url, asked, { signal: stopping.signal }))]);",
        idle_service.home,
        idle_service.token("hasty"),
    )
    ((seconds, code, status),), last = said
    assert (code, status) == ("RATE_LIMITED", 429)
    assert 1 <= seconds <= 60
    assert last["error"]["name"] == "AbortError"


def enveloped(data):
    return JSONResponse({"success": True, "data": data, "error": None, "meta": {"request_id": "r"}})


def test_a_busy_service_is_asked_again(call):
    asked = []

    def me(request):
        asked.append(request.headers["authorization"])
        if len(asked) < 2:
            return PlainTextResponse("busy", 503, {"Retry-After": "1"})
        return enveloped({"credits": 3})

    with served(Starlette(routes=[Route("/api/v1/me", me)])) as url:
        said = call(
            "const told = []; const onWait = (seconds) => told.push(seconds);"
            "print([await new Service({ ...input, onWait }).me(), told]);",
            f"{url}/",
            "t",
        )
    assert said == [{"credits": 3}, [1]]
    assert asked == ["Bearer t", "Bearer t"]


def test_a_task_that_fails_says_why(call):
    routes = [
        Route("/api/v1/segment", lambda _: enveloped({"task_id": "t", "status": "pending"}), methods=["POST"]),
        Route("/api/v1/tasks/t", lambda _: enveloped({"status": "error", "error_message": "the prompt has 40 tokens"})),
    ]
    with served(Starlette(routes=routes)) as url:
        said = call("print(await outcome(service.find('i', { words: ['cat'] })));", f"{url}/", "t")
    assert (said["error"]["code"], said["error"]["message"]) == ("TASK_FAILED", "the prompt has 40 tokens")


@pytest.mark.parametrize("status", [502, 200])
def test_who_is_no_such_service_is_told_apart(call, status):
    app = Starlette(routes=[Route("/api/v1/me", lambda _: PlainTextResponse("<html>hello", status))])
    with served(app) as url:
        said = call("print(await outcome(service.me()));", f"{url}/", "t")["error"]
    assert (said["name"], said["code"], said["status"]) == ("ServiceError", "UNKNOWN", status)
    assert "127.0.0.1" in said["message"]


def test_a_service_that_is_not_there_is_said_so(call, tmp_path):
    with served(Starlette()) as url:
        pass
    said = call("print(await outcome(service.upload(picture())));", f"{url}/", "t")["error"]
    assert (said["name"], said["code"], said["status"]) == ("ServiceError", "UNREACHABLE", 0)


def test_the_token_goes_to_the_service_only(call):
    seen = []

    def object_(request):
        seen.append((request.url.path, request.headers.get("authorization")))
        return Response(b"{}")

    with served(Starlette(routes=[Route("/{path:path}", object_)])) as url:
        call(
            "await service.object('https://cdn.example/base/users/u/a.json');"  # read through the service
            "await service.object(`${input.other}/users/u/b.json`); print(null);",
            f"{url}/seg/",
            "secret",
            public_base="https://cdn.example/base",
            other=f"{url}/bucket",
        )
    assert seen == [("/seg/files/users/u/a.json", None), ("/bucket/users/u/b.json", None)]


def test_it_works_where_the_edge_is_mounted(call, tmp_path):
    settings = Settings(_env_file=None, data_dir=tmp_path, public_base_url="https://not-this-host.example/files")
    token = local_keys(settings).mint("ann")
    edge = edge_app(settings)
    outer = Starlette(routes=[Mount("/seg", app=edge)], lifespan=lambda _: edge.router.lifespan_context(edge))
    with served(outer) as url:
        said = call(
            "const image = await service.upload(picture()); const back = await service.object(image.image_url);"
            "print([image.image_url, back.size]);",
            f"{url}/seg/",
            token,
            public_base=settings.public_base_url,
        )
    assert said[0].startswith("https://not-this-host.example/files/")
    assert said[1] == len(encoded())


def test_a_token_that_cannot_be_sent_is_refused_before_it_is_sent(run_node):
    tokens = ["eyJ.a-b_c.d=", "a b", "a\nb", '"a"', "'a'", "Bearer a", "\u201ca", "a\u200b", ""]
    said = run_node('import { tokenProblem } from "./requests.js"; print(input.map(tokenProblem));', tokens)
    assert said[0] == ""
    assert all(said[1:])
    assert "Bearer" in said[5]
