"""Signing in with Supabase's own client, and what users are told when the project refuses."""

import logging
import traceback

import httpx
import pytest
from starlette.responses import HTMLResponse, JSONResponse

from s3seg.client.signin.discovery import Project
from s3seg.client.signin.supabase import SupabaseAuth
from s3seg.errors import AuthInvalidError, ConfigurationError, RateLimitedError, UnavailableError
from tests.helpers.fake_supabase import PUBLISHABLE_KEY, refused

SERVICE = "https://s3seg.example"
PASSWORD = "correct horse"


@pytest.fixture
def auth(supabase, store):
    supabase.auth.sign_up("ann@example.com", PASSWORD)
    return SupabaseAuth(SERVICE, Project(url=supabase.url, key=PUBLISHABLE_KEY), store.write)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (refused(400, "invalid_credentials", "Invalid login credentials"), AuthInvalidError, "password is wrong"),
        (refused(400, "email_not_confirmed", "Email not confirmed"), AuthInvalidError, "not confirmed yet; follow the"),
        (refused(403, "user_banned", "User is banned"), AuthInvalidError, "banned from the project"),
        (refused(400, "captcha_failed", "captcha"), AuthInvalidError, "use --browser"),
        (refused(422, "email_provider_disabled", "Email logins are disabled"), AuthInvalidError, "use --browser"),
        (refused(400, "something_new", "Not on Sundays"), AuthInvalidError, "refused: Not on Sundays"),
        (refused(429, "over_request_rate_limit", "slow down"), RateLimitedError, "too many requests; wait a minute"),
        (refused(500, "unexpected_failure", "oh"), UnavailableError, "failed: AuthApiError 500"),
        (502, UnavailableError, "cannot reach Supabase Auth"),
        (HTMLResponse("<html>a portal of the hotel"), UnavailableError, "is not that of Supabase Auth"),
        (JSONResponse({"hello": "SECRET-IN-ANSWER"}), UnavailableError, "is not that of Supabase Auth"),
        (
            JSONResponse({"code": 400, "error_code": "invalid_credentials", "msg": "no"}, 400),
            AuthInvalidError,
            "is wrong",
        ),
    ],
)
def test_what_the_project_says_is_told_in_words(supabase, auth, store, answer, error, said):
    supabase.auth.fail = [answer]
    with pytest.raises(error, match=said) as raised:
        auth.with_password("ann@example.com", PASSWORD)
    shown = "".join(traceback.format_exception(raised.value))
    assert PASSWORD not in shown
    assert "SECRET-IN-ANSWER" not in shown
    assert not store.has(SERVICE)


def test_a_key_that_the_project_does_not_know_is_told(supabase, store):
    auth = SupabaseAuth(SERVICE, Project(url=supabase.url, key="sb_publishable_old"), store.write)
    with pytest.raises(AuthInvalidError, match="Invalid API key"):
        auth.with_password("ann@example.com", "x")


def test_a_project_that_does_not_answer_is_named(store):
    auth = SupabaseAuth(SERVICE, Project(url="http://127.0.0.1:9", key=PUBLISHABLE_KEY), store.write)
    with pytest.raises(UnavailableError, match=r"cannot reach Supabase Auth at http://127\.0\.0\.1:9"):
        auth.with_password("ann@example.com", PASSWORD)


def test_the_code_of_one_browser_does_not_work_with_another_sign_in(supabase, auth, store):
    other = SupabaseAuth(SERVICE, Project(url=supabase.url, key=PUBLISHABLE_KEY), store.write)
    other.start_in_browser("github", "http://127.0.0.1:1/x")
    address = auth.start_in_browser("github", "http://127.0.0.1:1/x")
    code = httpx.get(address).headers["location"].rpartition("code=")[2]
    with pytest.raises(AuthInvalidError, match="belongs to another sign-in"):
        other.finish_in_browser(code)
    assert not store.has(SERVICE)


def test_a_code_of_a_browser_works_once(supabase, auth):
    address = auth.start_in_browser("github", "http://127.0.0.1:1/x")
    code = httpx.get(address).headers["location"].rpartition("code=")[2]
    assert auth.finish_in_browser(code).name == "ann@example.com"
    with pytest.raises(AuthInvalidError):
        auth.finish_in_browser(code)


def test_a_password_is_not_logged(auth, caplog):
    caplog.set_level(logging.DEBUG)
    auth.with_password("ann@example.com", PASSWORD)
    assert "grant_type=password" in caplog.text
    assert PASSWORD not in caplog.text


def test_without_the_package_it_is_told_what_to_install(monkeypatch, store):
    monkeypatch.setitem(__import__("sys").modules, "supabase_auth", None)
    with pytest.raises(ConfigurationError, match=r"pip install 's3seg\[cloud\]'"):
        SupabaseAuth(SERVICE, Project(url="https://x.example", key=PUBLISHABLE_KEY), store.write)
