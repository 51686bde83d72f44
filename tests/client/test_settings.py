"""The settings of a client are checked once, when it is created, and secrets stay out of everything that is shown."""

import socket
import traceback

import httpx
import pytest

from s3seg import errors
from s3seg.client import AsyncClient, Client, RetryPolicy
from s3seg.client._core import Core

CLIENTS = pytest.mark.parametrize("client_class", [Client, AsyncClient])
SECRET = "eyJhbGciOi.SECRET.sig"


def authorization(request):
    """The header that a step's request is sent with."""
    sent = next(request.options["auth"].sync_auth_flow(httpx.Request("GET", request.url)))
    return sent.headers["Authorization"]


@pytest.mark.parametrize("space", ["\n", "\r\n", " ", "\t", "\u00a0", "\u3000"])
@CLIENTS
def test_white_space_around_token_and_url_is_removed(client_class, space):
    core = client_class(f"{space}http://edge.example/{space}", f"{space}{SECRET}{space}")._core
    request = core._request("GET", "/me")
    assert request.url == "http://edge.example/api/v1/me"
    assert authorization(request) == f"Bearer {SECRET}"


@pytest.mark.parametrize("end", ["", "/", "/api/v1", "/api/v1/"])
@CLIENTS
def test_the_url_may_be_that_of_the_api(client_class, end):
    core = client_class(f"http://edge.example/seg{end}", SECRET)._core
    assert core._request("GET", "/me").url == "http://edge.example/seg/api/v1/me"


def test_white_space_around_the_environment_variables_is_removed(monkeypatch):
    monkeypatch.setenv("S3SEG_URL", " http://edge.example/ \n")
    monkeypatch.setenv("S3SEG_TOKEN", f"{SECRET}\n")
    request = Client()._core._request("GET", "/me")
    assert request.url == "http://edge.example/api/v1/me"
    assert authorization(request) == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "token",
    [
        f"{SECRET}\n{SECRET}",
        f"{SECRET} {SECRET}",
        f"Bearer {SECRET}",
        f'"{SECRET}"',
        f"'{SECRET}'",
        f"\u201c{SECRET}\u201d",
        f"{SECRET}\0",
        f"{SECRET}\x7f",
        f"{SECRET}\u2026",
        f"{SECRET}\ud800",
        f"{SECRET}\u200b",
    ],
)
@CLIENTS
def test_an_illegal_token_is_refused_at_once_and_not_repeated(client_class, token):
    with pytest.raises(errors.ConfigurationError, match="token") as raised:
        client_class("http://edge.example", token)
    assert "SECRET" not in shown(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        SECRET,  # the token in place of the URL
        f"http://user:{SECRET}@edge.example",
        f"https://edge.example/?key={SECRET}",
        f"https://edge.example/#token={SECRET}",
        f"http://edge.example:{SECRET}",
        f"http://edge.example/\n{SECRET}",
        f"http://[{SECRET}",
        "http://:80",
    ],
)
@CLIENTS
def test_an_illegal_url_is_refused_at_once_and_not_repeated(client_class, url):
    with pytest.raises(errors.ConfigurationError, match="URL") as raised:
        client_class(url, "t")
    assert "SECRET" not in shown(raised.value)


@CLIENTS
def test_the_token_is_in_no_repr(client_class):
    client = client_class("http://edge.example", SECRET)
    request = client._core._request("GET", "/me")
    assert SECRET not in repr(client) + repr(client._core) + repr(request) + repr(dict(request.options))


def test_a_header_that_cannot_be_sent_is_an_error_at_once_that_does_not_repeat_it(monkeypatch):
    pauses = []
    monkeypatch.setattr("s3seg.client._sync.time.sleep", pauses.append)
    with socket.create_server(("127.0.0.1", 0)) as server:
        http = httpx.Client(headers={"X-Proxy-Key": f"{SECRET}\n"})
        client = Client(f"http://127.0.0.1:{server.getsockname()[1]}", "t", http=http)
        with pytest.raises(errors.ConfigurationError, match="header") as raised:
            client.me()
    assert pauses == []
    assert "SECRET" not in shown(raised.value)


@pytest.mark.parametrize("key", ["a\nb", " a", "a ", "x" * 201, "ключ", "\0"])
def test_an_illegal_idempotency_key_is_refused_before_anything_is_sent(key):
    client = Client("http://edge.example", "t", http=httpx.Client(transport=httpx.MockTransport(_unreachable)))
    with pytest.raises(errors.InvalidRequestError, match="idempotency_key"):
        client.submit("http://edge.example/files/i.png", "cat", idempotency_key=key)


@pytest.mark.parametrize("answer", [httpx.Response(403), httpx.Response(500), httpx.Response(503)])
def test_the_signature_of_a_presigned_url_is_in_no_message(answer):
    from s3seg.client._steps import Request, fetch

    def respond(request):
        if request.url.host == "edge.example":
            return httpx.Response(302, headers={"Location": f"https://bucket.example/a.json?X-Sig={SECRET}"})
        return httpx.Response(answer.status_code)

    http = httpx.Client(transport=httpx.MockTransport(respond))
    client = Client("http://edge.example", "t", http=http)
    request = Request(method="GET", url="http://edge.example/files/a.json", options={"follow_redirects": True})
    with pytest.raises(errors.S3segError, match=r"bucket\.example/a\.json") as raised:
        client._run(fetch(request, RetryPolicy(retries=0)))
    assert "SECRET" not in shown(raised.value)


def test_a_blank_token_is_a_missing_token(monkeypatch):
    monkeypatch.setenv("S3SEG_TOKEN", " \n")
    with pytest.raises(errors.ConfigurationError, match="no access token"):
        Core.configured("http://edge.example", None, None)


def shown(error: BaseException) -> str:
    """What a traceback shows of an error."""
    return "".join(traceback.TracebackException.from_exception(error).format()) + repr(error)


def _unreachable(request: httpx.Request) -> httpx.Response:
    raise AssertionError("nothing must be sent")
