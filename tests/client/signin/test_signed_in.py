"""A sign-in that stays: tokens are renewed before they expire, by one of all who need one, and none is lost."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from s3seg.client import AsyncClient, Client, RetryPolicy
from s3seg.client.signin import SessionStore, SignedIn
from s3seg.client.signin.signed_in import session_of_token
from s3seg.client.signin.supabase import SupabaseAuth
from s3seg.errors import AuthInvalidError, AuthRequiredError, ConfigurationError, RateLimitedError, UnavailableError
from tests.helpers.fake_supabase import REUSE_INTERVAL_S, refused
from tests.helpers.signing_in import Clock, edge_of, signed_in_at

SERVICE = "https://s3seg.example"
AGAIN = r"sign in again with: s3seg login https://s3seg\.example"


@pytest.fixture
def clock():
    return Clock(time.time())


@pytest.fixture
def session(supabase, store, clock):
    return signed_in_at(supabase, SERVICE, store, clock=clock)


@pytest.fixture
def signed_in(session, store, clock):
    return SignedIn(SERVICE, store=store, clock=clock)


def me(client_class, url):
    """What a client of this class is told about its user."""

    async def ask():
        async with AsyncClient.signed_in(url) as client:
            return await client.me()

    if client_class is AsyncClient:
        return asyncio.run(ask())
    with Client.signed_in(url) as client:
        return client.me()


def refreshes(supabase):
    return supabase.auth.grants.count("refresh_token")


class TestRenewing:
    def test_a_token_is_used_until_a_minute_before_it_expires(self, supabase, signed_in, session, clock):
        clock.now += 3600 - 61
        assert signed_in.access_token() == session.access_token.get_secret_value()
        assert refreshes(supabase) == 0
        clock.now += 2
        renewed = signed_in.access_token()
        assert renewed != session.access_token.get_secret_value()
        assert signed_in.access_token() == renewed
        assert refreshes(supabase) == 1

    def test_a_short_lived_token_is_renewed_in_the_last_quarter_of_its_life(self, supabase, store, clock):
        supabase.auth.lifetime_s = 40
        signed_in_at(supabase, SERVICE, store, clock=clock)
        signed_in = SignedIn(SERVICE, store=store, clock=clock)
        clock.now += 29
        signed_in.access_token()
        assert refreshes(supabase) == 0
        clock.now += 2
        signed_in.access_token()
        assert refreshes(supabase) == 1

    @pytest.mark.parametrize("ahead_s", [-7200, 7200])
    def test_a_wrong_clock_on_either_side_changes_nothing(self, supabase, store, clock, ahead_s):
        supabase.auth.ahead_s = ahead_s
        signed_in_at(supabase, SERVICE, store, clock=clock)
        signed_in = SignedIn(SERVICE, store=store, clock=clock)
        clock.now += 3500
        signed_in.access_token()
        assert refreshes(supabase) == 0
        clock.now += 50
        signed_in.access_token()
        assert refreshes(supabase) == 1

    def test_renewing_goes_on_for_as_long_as_the_session_lives(self, supabase, signed_in, clock):
        tokens = set()
        for _ in range(5):
            clock.now += 3600
            supabase.auth.ahead_s += 3600
            tokens.add(signed_in.access_token())
        assert len(tokens) == refreshes(supabase) == 5

    def test_a_new_process_takes_up_what_was_renewed(self, signed_in, store, clock):
        clock.now += 3600
        token = signed_in.access_token()
        assert SignedIn(SERVICE, store=store, clock=clock).access_token() == token

    def test_while_the_project_is_down_a_token_is_used_to_its_end(self, supabase, signed_in, session, clock):
        supabase.auth.fail = [503] * 100
        clock.now += 3600 - 30
        for _ in range(5):
            assert signed_in.access_token() == session.access_token.get_secret_value()
        assert refreshes(supabase) == 1  # not with every request
        clock.now += 31
        with pytest.raises(UnavailableError, match="cannot reach Supabase Auth"):
            signed_in.access_token()
        supabase.auth.fail = []
        assert signed_in.access_token() != session.access_token.get_secret_value()

    def test_too_many_requests_are_told_when_there_is_no_valid_token(self, supabase, signed_in, session, clock):
        supabase.auth.fail = [refused(429, "over_request_rate_limit", "slow down")] * 2
        clock.now += 3600 - 30
        assert signed_in.access_token() == session.access_token.get_secret_value()
        clock.now += 31
        with pytest.raises(RateLimitedError, match="too many requests"):
            signed_in.access_token()

    def test_a_session_that_was_revoked_says_how_to_sign_in_again(self, supabase, signed_in, clock):
        supabase.auth.revoke(next(iter(supabase.auth.users.values())))
        clock.now += 3600
        with pytest.raises(AuthInvalidError, match=AGAIN):
            signed_in.access_token()

    def test_a_sign_in_that_was_forgotten_meanwhile_says_so(self, signed_in, store, clock):
        store.delete(SERVICE)
        clock.now += 3600
        with pytest.raises(AuthRequiredError, match=r"sign in with: s3seg login https://s3seg\.example"):
            signed_in.access_token()

    def test_a_client_never_goes_on_as_another_user(self, supabase, signed_in, store, clock):
        signed_in_at(supabase, SERVICE, store, clock=clock)
        clock.now += 3600
        with pytest.raises(AuthInvalidError, match="another user has signed in"):
            signed_in.access_token()

    def test_nobody_signed_in_is_told_with_the_remedy(self, store):
        with pytest.raises(AuthRequiredError, match=r"sign in with: s3seg login https://s3seg\.example"):
            SignedIn("https://s3seg.example/", store=store)


class TestSharing:
    def test_of_many_who_need_a_token_at_once_one_renews_it(self, supabase, session, store, clock):
        everyone = [SignedIn(SERVICE, store=store, clock=clock) for _ in range(8)]
        clock.now += 3600
        supabase.auth.slow_s = 0.05
        with ThreadPoolExecutor(16) as threads:
            tokens = set(threads.map(lambda one: one.access_token(), everyone * 2))
        assert len(tokens) == 1
        assert refreshes(supabase) == 1

    @pytest.mark.slow
    def test_of_many_processes_one_renews(self, supabase, session, store, clock, tmp_path):
        code = (
            "import sys, time; from pathlib import Path; from s3seg.client.signin import SessionStore, SignedIn\n"
            "from s3seg.client.signin import sessions; sessions.system_keyring = lambda: None\n"
            f"store = SessionStore(Path({str(store._folder)!r})); one = SignedIn({SERVICE!r}, store=store)\n"
            "one._clock = lambda: time.time() + 3600\n"
            "print('ready', flush=True); sys.stdin.readline(); print(one.access_token())"
        )
        command = [sys.executable, "-c", code]
        supabase.auth.slow_s = 0.3
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running = [subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "src"}, **pipes) for _ in range(4)]
        for one in running:
            assert one.stdout.readline() == "ready\n"
        for one in running:
            one.stdin.write("go\n")
            one.stdin.flush()
        tokens = {one.communicate(timeout=60)[0].strip() for one in running}
        assert tokens == {store.read(SERVICE).access_token.get_secret_value()}
        assert refreshes(supabase) == 1

    def test_a_token_that_another_process_renewed_is_taken_over(self, supabase, signed_in, store, clock):
        other = SignedIn(SERVICE, store=store, clock=clock)
        clock.now += 3600
        token = other.access_token()
        assert signed_in.access_token() == token
        assert refreshes(supabase) == 1


class TestCrashes:
    def test_an_answer_that_was_not_written_costs_nothing(self, supabase, session, store, clock, monkeypatch):
        clock.now += 3600
        with monkeypatch.context() as patch:
            patch.setattr(SessionStore, "write", lambda self, session: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                SignedIn(SERVICE, store=store, clock=clock).access_token()
        supabase.auth.ahead_s += 10 * REUSE_INTERVAL_S  # long after it
        assert SignedIn(SERVICE, store=store, clock=clock).access_token() != session.access_token.get_secret_value()
        assert refreshes(supabase) == 2

    def test_an_answer_that_was_lost_costs_nothing(self, supabase, signed_in, clock):
        clock.now += 3600
        supabase.auth.lose = 1
        with pytest.raises(UnavailableError):
            signed_in.access_token()
        assert signed_in.access_token()
        assert refreshes(supabase) == 2

    def test_a_token_is_on_the_disk_before_it_is_used(self, supabase, session, store, clock, monkeypatch):
        clock.now += 3600
        monkeypatch.setattr(
            SessionStore, "write", lambda self, session: (_ for _ in ()).throw(ConfigurationError("full"))
        )
        with pytest.raises(ConfigurationError, match="full"):
            SignedIn(SERVICE, store=store, clock=clock).access_token()

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
    def test_a_process_that_is_killed_while_it_writes_leaves_a_sign_in(self, supabase, session, store):
        code = (
            "import os, signal, time; from pathlib import Path\n"
            "from s3seg.client.signin import SessionStore, SignedIn\n"
            "from s3seg.client.signin import sessions; sessions.system_keyring = lambda: None\n"
            f"one = SignedIn({SERVICE!r}, store=SessionStore(Path({str(store._folder)!r})))\n"
            "one._clock = lambda: time.time() + 3600\n"
            "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
            "one.access_token()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": "src"}, capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert refreshes(supabase) == 1
        after = SignedIn(SERVICE, store=store, clock=lambda: time.time() + 3600)
        assert after.access_token() != session.access_token.get_secret_value()

    def test_a_second_use_of_an_old_token_ends_the_session_which_the_stand_in_checks(self, supabase, session, store):
        """What all of the above avoids."""
        auth = SupabaseAuth(SERVICE, session.project, store.write)
        auth.renew(auth.renew(session))
        supabase.auth.ahead_s += REUSE_INTERVAL_S + 1
        with pytest.raises(AuthInvalidError, match=AGAIN):
            auth.renew(session)
        with pytest.raises(AuthInvalidError, match=AGAIN):
            auth.renew(store.read(SERVICE))


@pytest.fixture
def edge(supabase, tmp_path):
    with edge_of(supabase, tmp_path / "edge") as url:
        yield url


@pytest.fixture
def default_store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("s3seg.client.signin.sessions._default_folder", lambda: tmp_path / "config" / "sign-ins")
    return SessionStore()


class TestClients:
    def test_a_client_sends_the_token_of_the_sign_in(self, supabase, edge, default_store):
        session = signed_in_at(supabase, edge, default_store)
        with Client.signed_in(f"{edge}/") as client:
            assert client.me().user_id == session.user_id

    def test_an_async_client_too_in_several_event_loops(self, supabase, edge, default_store):
        session = signed_in_at(supabase, edge, default_store)
        client = AsyncClient.signed_in(edge)

        async def me():
            try:
                return (await client.me()).user_id
            finally:
                await client._own_http.pop(asyncio.get_running_loop()).aclose()

        assert {asyncio.run(me()), asyncio.run(me())} == {session.user_id}

    def test_the_url_may_come_from_the_environment(self, supabase, edge, default_store, monkeypatch):
        signed_in_at(supabase, edge, default_store)
        monkeypatch.setenv("S3SEG_URL", edge)
        with Client.signed_in() as client:
            assert client.me().credits == 10

    @pytest.mark.parametrize("client_class", [Client, AsyncClient])
    def test_a_token_that_is_refused_early_is_renewed_once_and_the_request_repeated(
        self, supabase, edge, default_store, client_class
    ):
        """As if the clock of this machine had been set back after it signed in."""
        supabase.auth.ahead_s = -7200
        signed_in_at(supabase, edge, default_store)
        supabase.auth.ahead_s = 0
        assert me(client_class, edge).credits == 10
        assert refreshes(supabase) == 1

    def test_a_service_that_refuses_every_token_is_not_asked_for_ever(self, supabase, default_store):
        signed_in_at(supabase, SERVICE, default_store)
        seen = []

        def refuse(request):
            seen.append(request.headers["authorization"])
            return httpx.Response(401, json={})

        with httpx.Client(transport=httpx.MockTransport(refuse)) as http:
            client = Client.signed_in(SERVICE, http=http)
            for _ in range(3):
                with pytest.raises(AuthInvalidError, match=AGAIN):
                    client.me()
        assert refreshes(supabase) == 1
        assert len(seen) == 4  # the first token, and the new one three times

    def test_a_token_of_the_operator_that_has_expired_says_how_to_sign_in_again(self, default_store):
        default_store.write(session_of_token(SERVICE, "an.old.token"))
        with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(401, json={}))) as http:
            client = Client.signed_in(SERVICE, http=http)
            with pytest.raises(AuthInvalidError, match=AGAIN):
                client.me()

    def test_a_long_wait_outlives_the_token_it_began_with(self, supabase, edge, default_store):
        supabase.auth.lifetime_s = 2
        signed_in_at(supabase, edge, default_store)
        with Client.signed_in(edge, retry_policy=RetryPolicy(retries=0)) as client:
            token = client._core.auth._signed_in.access_token()
            client._core.auth._signed_in._clock = lambda: time.time() + 2
            assert client.me().credits == 10
            assert client._core.auth._signed_in.access_token() != token


def test_no_secret_is_logged_or_shown(supabase, edge, default_store, caplog):
    caplog.set_level(logging.DEBUG)
    session = signed_in_at(supabase, edge, default_store)
    with Client.signed_in(edge) as client:
        signed_in = client._core.auth._signed_in
        signed_in._clock = lambda: time.time() + 3600
        client.me()
    renewed = default_store.read(edge)
    secrets = [
        one.get_secret_value()
        for one in (session.access_token, session.refresh_token, renewed.access_token, renewed.refresh_token)
    ]
    assert len(set(secrets)) == 4
    said = caplog.text + repr(client) + repr(client._core) + repr(signed_in) + repr(client._core.auth)
    assert not [secret for secret in secrets if secret in said]


def test_signing_out_ends_the_session_and_forgets_it(supabase, edge, default_store):
    signed_in_at(supabase, edge, default_store)
    (user,) = supabase.auth.users.values()
    assert SignedIn(edge).sign_out() == ""
    assert supabase.auth.sessions(user) == 0
    assert not default_store.has(edge)


def test_signing_out_without_the_project_forgets_it_here_and_says_so(supabase, store, clock):
    signed_in_at(supabase, SERVICE, store, clock=clock)
    clock.now += 3600
    supabase.auth.fail = [503]
    assert "cannot reach" in SignedIn(SERVICE, store=store, clock=clock).sign_out()
    assert not store.has(SERVICE)
