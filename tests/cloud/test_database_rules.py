"""The rules that the database enforces without the edge: credits, rate limits, valid values, final states."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3seg.api.fields import check_text
from s3seg.tasks.limits import MAX_NAME_CHARS, MAX_PROMPT_CHARS
from s3seg.tasks.object_keys import new_image_key
from s3seg.testing.harness import PUBLIC_BASE
from tests.cloud.direct_client import register, submit, user_with_data

TABLES = ("profiles", "credit_ledger", "projects", "images", "segmentation_results")


@pytest.fixture(autouse=True)
def empty(project):
    project.empty()


@pytest.fixture
def owner(project):
    with psycopg.connect(project.database.url, autocommit=True) as connection:
        yield connection


# --- submitting


def test_concurrent_submits_cannot_spend_a_credit_twice(project, sign_up):
    user_id, client = sign_up(credits=7)
    image = register(client, user_id).json()
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda _: submit(client, image).status_code, range(40)))
    assert (statuses.count(200), statuses.count(402)) == (7, 33)
    assert project.database.execute("select credits from public.profiles where user_id = %s", (user_id,)) == [(0,)]
    sums = project.database.execute("select sum(delta) from public.credit_ledger where user_id = %s", (user_id,))
    assert sums == [(0,)]


def test_concurrent_repeats_of_one_key_create_one_task(sign_up):
    user_id, client = sign_up(credits=40)
    image = register(client, user_id).json()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: submit(client, image, p_idempotency_key="k").json(), range(40)))
    assert len({answer["task"]["id"] for answer in answers}) == 1
    assert sum(answer["created"] for answer in answers) == 1


def test_concurrent_cancels_failures_and_reapers_refund_once(project, sign_up, service):
    user_id, client = sign_up(credits=10)
    image = register(client, user_id).json()
    tasks = [submit(client, image, ["a", "b"]).json()["task"]["id"] for _ in range(3)]
    for task in tasks:
        service.call("worker_claim", p_worker="w", p_task_id=task, p_lease_s=30).raise_for_status()
    project.database.execute("update private.test_clock set ahead = '2000 seconds'")

    def end(number):
        task = tasks[number % 3]
        if number % 4 == 0:
            return client.call("cancel_task", p_task_id=task)
        if number % 4 == 1:
            return client.call("delete_task", p_task_id=task)
        if number % 4 == 2:
            return service.call("worker_reap", p_limit=100)
        return service.call(
            "worker_fail", p_task_id=task, p_worker="w", p_attempt=1, p_code="INFERENCE_FAILED", p_message="no"
        )

    with ThreadPoolExecutor(24) as pool:
        statuses = {answer.status_code for answer in pool.map(end, range(48))}
    assert statuses <= {200, 409}
    refunds = project.database.execute("select task_id::text, delta from public.credit_ledger where reason = 'refund'")
    assert sorted(refunds) == sorted((task, 2) for task in tasks)
    assert project.database.execute("select credits from public.profiles where user_id = %s", (user_id,)) == [(10,)]


def test_submits_are_limited_without_an_edge(sign_up):
    user_id, client = sign_up(tier="free")
    image = register(client, user_id).json()
    statuses = [submit(client, image).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2


def test_concurrent_requests_are_counted_correctly(sign_up):
    user_id, client = sign_up(tier="free", credits=40)
    image = register(client, user_id).json()
    with ThreadPoolExecutor(40) as pool:
        uploads = list(pool.map(lambda _: register(client, user_id).status_code, range(40)))
        submits = list(pool.map(lambda _: submit(client, image).status_code, range(40)))
    assert (uploads.count(200), uploads.count(429)) == (9, 31)
    assert (submits.count(200), submits.count(429)) == (5, 35)


def test_uploads_are_limited_without_an_edge(project, sign_up):
    user_id, client = sign_up(tier="free")
    made = [register(client, user_id) for _ in range(11)]
    assert [answer.status_code for answer in made] == [200] * 10 + [429]
    client.call("delete_image", p_image_id=made[0].json()["id"]).raise_for_status()
    assert register(client, user_id).status_code == 429  # deleting does not reset the limit
    project.database.execute("update private.test_clock set ahead = '61 seconds'")
    assert register(client, user_id).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://localhost:5432/", "file:///etc/passwd", "", "gopher://x",
        f"{PUBLIC_BASE}/users/x/images/../../secret.png", f"{PUBLIC_BASE}@evil.example/", "//evil.example/x.png",
    ],
)  # fmt: skip
def test_only_the_urls_of_own_uploads_are_accepted(sign_up, url):
    _, client = sign_up()
    answer = submit(client, {"image_url": url})
    assert (answer.status_code, answer.json()["message"]) == (400, "UNKNOWN_IMAGE")


def test_the_image_of_another_user_and_an_absent_one_give_the_same_error(sign_up):
    other_id, other = sign_up()
    _, client = sign_up()
    foreign = register(other, other_id).json()
    guessed = {"image_url": f"{PUBLIC_BASE}/{new_image_key(other_id, 'image/png')}"}
    assert submit(client, foreign).content == submit(client, guessed).content


@pytest.mark.parametrize(
    "change",
    [
        {"p_object_key": "users/{own}/images/a.png"},
        {"p_object_key": "users/{other}/images/0123456789abcdef0123456789abcdef.png"},
        {"p_object_key": "users/{own}/results/a.png"},
        {"p_object_key": "users/{own}/images/../../{other}/images/0123456789abcdef0123456789abcdef.png"},
        {"p_object_key": "users/{own}/images/.hidden.png"},
        {"p_object_key": "users/{own}/images/0123456789abcdef0123456789abcdef.svg"},
        {"p_object_key": "users/{own}/images/0123456789abcdef0123456789abcdef.jpg"},
        {"p_object_key": "users/{own}/images/0123456789abcdef0123456789abcdef.png\n"},
        {"p_object_key": "users/{own}/images/" + "a" * 500 + ".png"},
        {"p_object_key": "users/{own}/images/" + "a" * 250 + ".png"},
        {"p_object_key": "users/{own}/images/a/0123456789abcdef0123456789abcdef.png"},
        {"p_object_key": "/users/{own}/images/0123456789abcdef0123456789abcdef.png"},
        {"p_object_key": "x/users/{own}/images/0123456789abcdef0123456789abcdef.png"},
        {"p_object_key": "users/{own}/images/%2e%2e%2fa.png"},
        {"p_object_key": "users/{own}/images/0123456789abcdef0123456789abcdef.png?x=.png"},
        {"p_object_key": None},
        {"p_content_type": "image/svg+xml"},
        {"p_size_bytes": 10485761},
        {"p_size_bytes": 0},
        {"p_width": 0},
        {"p_height": -1},
        {"p_width": 2**31 - 1, "p_height": 2**31 - 1},
        {"p_width": 178_000_001, "p_height": 1},
        {"p_width": 2**31},
        {"p_size_bytes": 2**63},
        {"p_width": None},
        {"p_project_id": "00000000-0000-0000-0000-000000000007"},
    ],
)
def test_an_invalid_image_cannot_be_registered(sign_up, change):
    other, _ = sign_up()
    own, client = sign_up()
    change = {
        name: value.format(own=own, other=other) if isinstance(value, str) else value for name, value in change.items()
    }
    assert register(client, own, **change).status_code in (400, 422)
    assert client.rows("images").json() == []


@given(
    text=st.text(max_size=12) | st.text("a \u3000\u00a0\u200b", max_size=4) | st.integers(118, 502).map("x".__mul__),
    limit=st.sampled_from([MAX_PROMPT_CHARS, MAX_NAME_CHARS]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_database_accepts_the_same_prompts_and_names_as_the_edge(project, owner, text, limit):
    try:
        check_text(text, what="it", limit=limit)
        ours = True
    except ValueError:
        ours = False
    if "\0" in text:  # PostgreSQL cannot store it
        assert not ours
        return
    assert owner.execute("select private.is_text(%s, %s)", (text, limit)).fetchone() == (ours,)


@pytest.mark.parametrize("name", ["", " ", "x" * 121, "a\nb", "\u202eforged", "\u2028"])
def test_a_project_cannot_get_a_name_that_the_edge_refuses(sign_up, name):
    _, client = sign_up()
    made = client.send("POST", "/projects", json={"name": "good"}, headers={"Prefer": "return=representation"})
    assert client.send("POST", "/projects", json={"name": name}).status_code == 400
    (project,) = made.json()
    assert (
        client.send("PATCH", "/projects", params={"id": f"eq.{project['id']}"}, json={"name": name}).status_code == 400
    )
    assert [row["name"] for row in client.rows("projects").json()] == ["good"]


def test_new_projects_are_limited_without_an_edge(project, sign_up):
    _, client = sign_up(tier="free")
    many = [{"name": f"p{number}"} for number in range(61)]
    assert client.send("POST", "/projects", json=many).status_code == 429  # every row counts
    assert client.send("POST", "/projects", json=many[:60]).status_code == 201
    refused = client.send("POST", "/projects", json=many[0])
    assert (refused.status_code, json.loads(refused.json()["details"])["action"]) == (429, "results")
    client.send("DELETE", "/projects", params={"name": "neq.x"}).raise_for_status()
    assert client.send("POST", "/projects", json=many[0]).status_code == 429  # deleting does not reset the limit
    project.database.execute("update private.test_clock set ahead = '61 seconds'")
    assert client.send("POST", "/projects", json=many[0]).status_code == 201


def test_a_task_has_one_to_sixteen_prompts(sign_up):
    user_id, client = sign_up(credits=100)
    image = register(client, user_id).json()
    for prompts in ([], ["a"] * 17, [None], ["a", ""], ["a\u0000"], ["a\ud800"]):
        answer = client.send(
            "POST",
            "/rpc/submit_segmentation",
            content=json.dumps({"p_image_url": image["image_url"], "p_text_prompts": prompts}),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 400, prompts
    assert submit(client, image, ["a"] * 16).status_code == 200
    assert client.rows("profiles").json()[0]["credits"] == 84


@pytest.mark.parametrize(
    "visual",
    [
        [],
        3,
        "x",
        {"clicks": []},
        {"clicks": [{}] * 2},  # two objects for the price of one
        {"clicks": {}},
        {"clicks": None},
        {"other": "x" * 65536},
    ],
)
def test_what_is_asked_beside_words_is_bounded_and_paid_for(sign_up, visual):
    user_id, client = sign_up(credits=5)
    image = register(client, user_id).json()
    refused = submit(client, image, ["thing"], p_visual=visual)
    assert (refused.status_code, refused.json()["message"]) == (400, "BAD_VISUAL")
    assert submit(client, image, ["thing"], p_visual={"clicks": [{}]}).status_code == 200
    assert client.rows("profiles").json()[0]["credits"] == 4


def test_concepts_are_counted_and_bounded(project, sign_up):
    _, client = sign_up()
    for refused in (
        {"name": "", "definition": {}},
        {"name": "x", "definition": []},
        {"name": "x", "definition": {"x": "y" * 32768}},
        {"name": "x", "definition": None},
        [{"name": "x", "definition": {}}] * 101,  # every row counts
    ):
        assert client.send("POST", "/concepts", json=refused).status_code in (400, 429), refused
    for _ in range(2):
        assert client.send("POST", "/concepts", json=[{"name": "x", "definition": {}}] * 50).status_code == 201
        project.database.execute("update private.test_clock set ahead = ahead + '61 seconds'")
    assert (
        client.send("POST", "/concepts", json={"name": "x", "definition": {}}).json()["message"] == "TOO_MANY_CONCEPTS"
    )


# --- workers


def test_a_task_that_has_ended_cannot_be_changed(project, sign_up):
    user_with_data(sign_up)
    (task,) = project.database.execute("select id from public.segmentation_results")[0]
    execute = project.database.execute
    for change in (
        "status = 'done', mask_image_url = 'x'",  # not allowed from pending
        "text_prompts = array['dog']",
        "source_image_url = 'http://169.254.169.254/'",
        "deadline = deadline + interval '1 day'",
    ):
        with pytest.raises(psycopg.Error) as refused:
            execute(f"update public.segmentation_results set {change} where id = %s", (task,))
        assert refused.value.sqlstate == "PT409"
    execute("select private.end_in_error(%s, 'CANCELLED', 'cancelled')", (task,))
    for change in ("status = 'processing', error_message = null", "error_message = 'else'", "labels = '{x}'"):
        with pytest.raises(psycopg.Error) as refused:
            execute(f"update public.segmentation_results set {change} where id = %s", (task,))
        assert refused.value.sqlstate == "PT409"
    with pytest.raises(psycopg.Error):
        execute("update public.credit_ledger set delta = 1000")


def test_finishing_again_with_the_same_result_succeeds(sign_up, service):
    user_with_data(sign_up)
    (claim,) = service.call("worker_claim_batch", p_worker="w", p_limit=1, p_lease_s=30).json()
    result = {
        "p_task_id": claim["id"], "p_worker": "w", "p_attempt": 1, "p_mask_image_url": "https://x/m.png",
        "p_labels": ["cat"], "p_metadata": {}, "p_object_keys": ["m.png"],
    }  # fmt: skip
    first, again = service.call("worker_finish", **result), service.call("worker_finish", **result)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert service.call("worker_finish", **{**result, "p_mask_image_url": "https://x/n.png"}).status_code == 409


def test_deleting_a_user_deletes_all_their_data(project, sign_up):
    user_id, _ = user_with_data(sign_up)
    project.database.execute("delete from auth.users where id = %s", (user_id,))
    for table in TABLES:
        assert project.database.execute(f"select * from public.{table}") == []
    for table in ("leases", "recent_actions"):
        assert project.database.execute(f"select * from private.{table}") == []
