"""How a client learns how to sign in."""

import httpx
import pytest

from s3seg.client.signin.discovery import Project, discover
from s3seg.errors import ConfigurationError, RateLimitedError, S3segError, UnavailableError

SERVICE = "https://s3seg.example"
META = {"request_id": "5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11", "timestamp": "2026-01-01T00:00:00Z"}
SUPABASE = {
    "kind": "supabase",
    "supabase_url": "https://ref.supabase.co/",
    "supabase_key": "sb_publishable_x",
    "realtime": True,
}


def asked(answer, service=SERVICE):
    def respond(request):
        assert request.url == f"{service}/api/v1/auth"
        assert "authorization" not in request.headers
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, json={"success": True, "data": answer, "error": None, "meta": META})

    with httpx.Client(transport=httpx.MockTransport(respond)) as http:
        return discover(service, http=http)


def test_the_project_of_a_service():
    assert asked(SUPABASE) == Project(url="https://ref.supabase.co", key="sb_publishable_x", realtime=True)


def test_a_service_whose_operator_hands_out_tokens():
    assert asked({"kind": "token", "realtime": False}) is None


def test_a_newer_service_may_tell_more():
    assert asked({**SUPABASE, "passkeys": True}) is not None


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (httpx.Response(404), ConfigurationError, r"s3seg login --token https://s3seg\.example"),
        (httpx.Response(200, text="<html>hello"), ConfigurationError, "not from an s3seg service; check the URL"),
        (httpx.Response(200, json={"data": {"kind": "magic"}}), ConfigurationError, "not from an s3seg service"),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), S3segError, "responded with 302"),
        (httpx.Response(503, text="busy"), UnavailableError, "responded with 503"),
        (
            httpx.ConnectError("connection refused"),
            UnavailableError,
            r"cannot reach https://s3seg\.example: connection ref",
        ),
        (
            {"kind": "supabase", "supabase_url": "https://ref.supabase.co", "realtime": False},
            ConfigurationError,
            "the key of",
        ),
    ],
)
def test_what_goes_wrong_is_told_with_the_remedy(answer, error, said):
    with pytest.raises(error, match=said):
        asked(answer)


def test_an_error_of_the_service_is_raised_as_such():
    error = {"code": "RATE_LIMITED", "message": "slow down"}
    with pytest.raises(RateLimitedError, match="slow down"):
        asked(httpx.Response(429, json={"success": False, "data": None, "error": error, "meta": META}))


@pytest.mark.parametrize(
    "address", ["http://evil.example", "ftp://ref.supabase.co", "javascript:alert(1)", "//ref.supabase.co", "https://"]
)
def test_no_password_is_sent_in_plain_http_or_to_what_is_no_address(address):
    with pytest.raises(ConfigurationError, match="nothing is sent there"):
        asked({**SUPABASE, "supabase_url": address})


@pytest.mark.parametrize(
    "address",
    [
        "https://ref.supabase.co@evil.example",
        "https://ref.supabase.co:x@evil.example",
        "https://evil.example/?ref.supabase.co",
        "https://evil.example/#ref.supabase.co",
        "https://evil.example/\x1b[2K\rhttps://ref.supabase.co",
        "https://evil.example/ https://ref.supabase.co",
        "https://ref.supabase.c\N{CYRILLIC SMALL LETTER O}",
        "https://evil.example/\N{RIGHT-TO-LEFT OVERRIDE}oc.esabapus.fer//:sptth",
    ],
)
def test_an_address_that_hides_where_it_leads_is_refused_before_anything_is_asked(address):
    with pytest.raises(ConfigurationError, match="not a plain https://host; nothing is sent there") as raised:
        asked({**SUPABASE, "supabase_url": address})
    assert "evil" not in str(raised.value)


@pytest.mark.parametrize(
    ("service", "address"),
    [("http://10.0.0.5:8000", "http://10.0.0.5:54321"), (SERVICE, "http://127.0.0.1:54321")],
)
def test_plain_http_is_used_where_all_of_the_service_is_so_or_the_project_is_on_this_machine(service, address):
    assert asked({**SUPABASE, "supabase_url": address}, service).url == address
