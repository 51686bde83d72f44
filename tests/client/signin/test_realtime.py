"""Waiting for tasks with Supabase Realtime, against a stand-in that speaks its protocol, and whatever can go wrong."""

import asyncio
import logging
import threading
import time
import uuid

import httpx
import pytest

from s3seg.client import AsyncClient, Client, _core
from s3seg.client._realtime import TaskChanges
from s3seg.client.signin.discovery import Project
from s3seg.errors import AuthInvalidError
from tests.helpers.fake_supabase import PUBLISHABLE_KEY
from tests.helpers.signing_in import signed_in_at, until

# Supabase's client reads it when a connection is lost
pytestmark = pytest.mark.filterwarnings(r"ignore:ConnectionClosed\.(code|reason) is deprecated:DeprecationWarning")
SERVICE = "https://s3seg.example"


class Service:
    """Answers for the service: the status of tasks, and how often each was read."""

    def __init__(self):
        self.status = {}
        self.reads = 0
        self.on_read = lambda task_id: None

    def new_task(self):
        task_id = str(uuid.uuid4())
        self.status[task_id] = "pending"
        return task_id

    def __call__(self, request):
        task_id = request.url.path.rpartition("/")[2]
        self.reads += 1
        status = self.status[task_id]
        self.on_read(task_id)
        moment = "2026-01-01T00:00:00Z"
        task = {"task_id": task_id, "status": status, "created_at": moment, "updated_at": moment}
        if status == "done":
            task["result_id"] = task_id
        meta = {"request_id": task_id, "timestamp": moment}
        return httpx.Response(200, json={"success": True, "data": task, "error": None, "meta": meta})


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def session(supabase, store, monkeypatch):
    monkeypatch.setattr("s3seg.client.signin.sessions._default_folder", lambda: store._folder)
    return signed_in_at(supabase, SERVICE, store, realtime=True)


@pytest.fixture
def client(session, service):
    """A client whose polls are so far apart that only Realtime can explain a quick answer."""
    with httpx.Client(transport=httpx.MockTransport(service)) as http, Client.signed_in(SERVICE, http=http) as client:
        yield client


@pytest.fixture(autouse=True)
def long_waits(monkeypatch):
    monkeypatch.setattr(_core, "_LONGEST_WAIT_S", 600.0)


@pytest.fixture
def long_polls(monkeypatch):
    monkeypatch.setattr(_core, "_SHORTEST_POLL_S", 500.0)
    monkeypatch.setattr(_core, "_LONGEST_POLL_S", 500.0)


def in_background(call):
    """Start a call in a thread, and return what gives its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()

    def result():
        thread.join(20)
        return results[0]

    return result


def end(supabase, service, session, task_id, status="done"):
    service.status[task_id] = status
    supabase.realtime.publish(session.user_id, task_id, status)


@pytest.mark.usefixtures("long_polls")
class TestTelling:
    def test_a_task_that_ends_is_read_at_once(self, supabase, service, session, client):
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: service.reads == 2)  # once, and once more when Realtime began to tell
        assert client._core.changes.is_live
        end(supabase, service, session, task_id)
        assert waiting().status == "done"
        assert service.reads == 3

    def test_one_connection_serves_many_tasks(self, supabase, service, session, client):
        tasks = [service.new_task() for _ in range(5)]
        waiting = [in_background(lambda: client.wait(tasks[0], timeout=1000))]
        until(lambda: service.reads == 2)
        waiting += [in_background(lambda task_id=task_id: client.wait(task_id, timeout=1000)) for task_id in tasks[1:]]
        until(lambda: service.reads == 6)
        for task_id in tasks:
            end(supabase, service, session, task_id)
        assert [one().status for one in waiting] == ["done"] * 5
        assert len(supabase.realtime.joins) == 1
        assert service.reads == 11

    def test_an_async_client_is_told_too(self, supabase, service, session):
        task_id = service.new_task()

        async def wait():
            async with (
                httpx.AsyncClient(transport=httpx.MockTransport(service)) as http,
                AsyncClient.signed_in(SERVICE, http=http) as client,
            ):
                waiting = asyncio.create_task(client.wait(task_id, timeout=1000))
                await asyncio.to_thread(until, lambda: service.reads == 2)
                await asyncio.to_thread(end, supabase, service, session, task_id)
                return await asyncio.wait_for(waiting, 20)

        assert asyncio.run(wait()).status == "done"
        assert service.reads == 3

    def test_it_asks_for_updates_of_the_users_own_rows_only(self, supabase, service, session, client):
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: service.reads == 2)
        (join,) = supabase.realtime.joins
        assert join["postgres_changes"] == [
            {
                "event": "UPDATE",
                "schema": "public",
                "table": "segmentation_results",
                "filter": f"user_id=eq.{session.user_id}",
            }
        ]
        end(supabase, service, session, task_id)
        waiting()

    def test_a_task_that_changes_while_it_is_read_is_not_missed(self, supabase, service, session, client):
        first = service.new_task()
        waiting = in_background(lambda: client.wait(first, timeout=1000))
        until(lambda: service.reads == 2)
        task_id = service.new_task()
        ended = []

        def end_while_it_is_read(read):
            """The task ends after its status was taken, and before anybody waits."""
            if read == task_id and not ended:
                ended.append(task_id)
                end(supabase, service, session, task_id)

        service.on_read = end_while_it_is_read
        assert client.wait(task_id, timeout=1000).status == "done"
        end(supabase, service, session, first)
        waiting()

    def test_a_task_that_ends_before_realtime_listens_is_not_missed(self, supabase, service, session, client):
        task_id = service.new_task()

        def end_untold(read):
            service.status[task_id] = "done"

        service.on_read = end_untold
        assert client.wait(task_id, timeout=1000).status == "done"
        assert service.reads == 2

    def test_a_join_alone_is_no_subscription(self, supabase, service, session, client):
        """Realtime answers the join before it follows the database; what happens in between it does not tell."""
        supabase.realtime.confirms = False
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: supabase.realtime.joins)
        assert service.reads == 1
        assert not client._core.changes.is_live
        service.status[task_id] = "done"
        client._core.changes.close()
        client._core.changes.forget(task_id)  # ends the wait
        assert waiting().status == "done"

    def test_what_ended_while_the_connection_was_lost_is_seen(self, supabase, service, session, client):
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: service.reads == 2)
        service.status[task_id] = "done"  # nobody tells
        supabase.realtime.drop()
        assert waiting().status == "done"

    def test_after_a_lost_connection_it_listens_again(self, supabase, service, session, client, monkeypatch):
        monkeypatch.setattr("s3seg.client._realtime._FIRST_RETRY_S", 0.01)
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: service.reads == 2)
        supabase.realtime.drop()
        until(lambda: len(supabase.realtime.joins) == 2 and service.reads == 4)  # when it stopped, and began again
        end(supabase, service, session, task_id)
        assert waiting().status == "done"

    def test_another_users_task_wakes_nobody(self, supabase, service, session, client):
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: service.reads == 2)
        supabase.realtime.publish(str(uuid.uuid4()), task_id, "done")
        end(supabase, service, session, service.new_task())  # one of the user's own that nobody waits for
        assert service.reads == 2
        end(supabase, service, session, task_id)
        assert waiting().status == "done"

    def test_a_renewed_token_is_passed_on(self, supabase, service, session, client, monkeypatch):
        monkeypatch.setattr("s3seg.client._realtime._LOOK_AT_TOKEN_EVERY_S", 0.01)
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=1000))
        until(lambda: service.reads == 2)
        monkeypatch.setattr(client._core.auth._signed_in, "_clock", lambda: time.time() + 3600)
        until(lambda: len(set(supabase.realtime.tokens)) == 2)
        end(supabase, service, session, task_id)
        waiting()
        assert len(supabase.realtime.joins) == 1


class TestPolling:
    """Whatever goes wrong with Realtime, tasks are polled as without it."""

    def ends(self, service, client):
        task_id = service.new_task()
        service.on_read = lambda read: service.status.update({task_id: "done"}) if service.reads == 3 else None
        assert client.wait(task_id, timeout=30).status == "done"
        assert service.reads == 4

    def test_when_it_takes_no_connections(self, supabase, service, client):
        supabase.realtime.works = False
        self.ends(service, client)

    def test_when_it_does_not_follow_the_table(self, supabase, service, client):
        supabase.realtime.error = "Unable to subscribe to changes with given parameters"
        self.ends(service, client)

    def test_when_it_never_confirms(self, supabase, service, client):
        supabase.realtime.confirms = False
        self.ends(service, client)

    def test_when_the_session_has_ended_the_error_is_that_of_the_service(self, supabase, service, client, monkeypatch):
        supabase.auth.revoke(next(iter(supabase.auth.users.values())))
        monkeypatch.setattr(client._core.auth._signed_in, "_clock", lambda: time.time() + 3600)
        with pytest.raises(AuthInvalidError, match="sign in again"):
            client.wait(service.new_task(), timeout=30)

    def test_when_it_is_silent_the_task_is_read_all_the_same(self, supabase, service, client, monkeypatch):
        monkeypatch.setattr(_core, "_LONGEST_WAIT_S", 0.05)
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=30))
        until(lambda: client._core.changes.is_live and service.reads > 4)
        service.status[task_id] = "done"
        assert waiting().status == "done"

    def test_a_wait_ends_in_time(self, supabase, service, client):
        with pytest.raises(TimeoutError, match=r"still pending after 0\.3 seconds"):
            client.wait(service.new_task(), timeout=0.3)

    def test_nothing_is_kept_of_tasks_that_nobody_waits_for(self, service, client):
        for _ in range(3):
            task_id = service.new_task()
            service.status[task_id] = "done"
            client.wait(task_id)
        assert client._core.changes._waiting == {}

    def test_its_errors_do_not_appear_on_standard_error(self, supabase, service, client, capfd):
        supabase.realtime.works = False
        self.ends(service, client)
        until(lambda: client._core.changes._thread is not None)
        assert "".join(capfd.readouterr()) == ""


class TestChoosing:
    @pytest.mark.parametrize(
        ("offered", "asked", "used"),
        [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
    )
    def test_it_is_used_where_the_service_offers_it_or_the_caller_asks(
        self, supabase, store, monkeypatch, offered, asked, used
    ):
        monkeypatch.setattr("s3seg.client.signin.sessions._default_folder", lambda: store._folder)
        signed_in_at(supabase, SERVICE, store, realtime=offered)
        with Client.signed_in(SERVICE, realtime=asked) as client:
            assert (client._core.changes is not None) is used

    def test_a_client_that_waits_for_nothing_does_not_connect(self, supabase, client):
        assert supabase.realtime.joins == []
        assert client._core.changes._thread is None

    def test_closing_ends_the_connection(self, supabase, service, session, client):
        task_id = service.new_task()
        waiting = in_background(lambda: client.wait(task_id, timeout=30))
        until(lambda: client._core.changes.is_live)
        end(supabase, service, session, task_id)
        waiting()
        assert supabase.realtime.subscribers == 1
        client.close()
        until(lambda: supabase.realtime.subscribers == 0)
        assert not client._core.changes._thread.is_alive()


def test_no_token_is_logged(supabase, service, session, client, caplog):
    caplog.set_level(logging.DEBUG)
    task_id = service.new_task()
    waiting = in_background(lambda: client.wait(task_id, timeout=30))
    until(lambda: client._core.changes.is_live)
    end(supabase, service, session, task_id)
    waiting()
    client.close()
    assert "phx_join" in caplog.text
    token = session.access_token.get_secret_value()
    assert token not in caplog.text
    assert token.rpartition(".")[2] not in caplog.text  # the signature, without which it is worth nothing


def test_what_is_not_installed_is_told(monkeypatch):
    from s3seg.errors import ConfigurationError

    monkeypatch.setattr("s3seg.client._realtime.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"s3seg\[cloud\]"):
        TaskChanges(Project(url="https://x.example", key=PUBLISHABLE_KEY), "", lambda: "")
