"""What the database allows to whom, whatever the edge does: roles and grants, rows and functions."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3seg.api.fields import check_text
from s3seg.tasks.limits import MAX_NAME_CHARS, MAX_PROMPT_CHARS, RATE_LIMITS, Action
from s3seg.tasks.object_keys import new_image_key
from s3seg.testing.harness import PUBLIC_BASE

TABLES = ("profiles", "credit_ledger", "projects", "images", "segmentation_results")
USER_FUNCTIONS = {
    "my_account", "register_image", "submit_segmentation", "cancel_task", "delete_task", "delete_image",
}  # fmt: skip
SERVICE_FUNCTIONS = {
    "worker_get", "worker_claim", "worker_claim_batch", "worker_renew", "worker_release", "worker_finish",
    "worker_fail", "worker_reap", "operator_ensure", "operator_adjust", "operator_referenced",
}  # fmt: skip
EVERYBODYS_FUNCTIONS = {"s3seg_info"}


class Client:
    """Somebody with a token and no edge, straight at PostgREST."""

    def __init__(self, http, token):
        self._http = http
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def send(self, method, path, *, headers=None, **request):
        return self._http.request(method, path, headers={**self._headers, **(headers or {})}, **request)

    def rows(self, table):
        return self.send("GET", f"/{table}")

    def call(self, function, **arguments):
        return self.send("POST", f"/rpc/{function}", json=arguments)


@pytest.fixture(autouse=True)
def empty(project):
    project.empty()


@pytest.fixture(scope="module")
def http(project):
    with httpx.Client(base_url=project.postgrest.url, timeout=30) as client:
        yield client


@pytest.fixture
def with_token(http):
    """Speaks for whom the token names; for nobody without one."""
    return lambda token=None: Client(http, token)


@pytest.fixture
def service(project, with_token):
    """A worker or an operator."""
    return with_token(project.issuer.role_token("service_role"))


@pytest.fixture
def sign_up(project, with_token):
    """A new user's id, and a client that speaks for them."""

    def make(*, credits=10, tier="enterprise", **claims):
        user_id = str(uuid.uuid4())
        project.sign_up(user_id)
        if not claims:
            project.database.execute("select public.operator_ensure(%s, %s)", (user_id, tier))
            project.database.execute("select public.operator_adjust(%s, %s)", (user_id, credits - 10))
        return user_id, with_token(project.issuer.user_token(user_id, **claims))

    return make


def with_everything(sign_up):
    user_id, client = sign_up()
    assert client.send("POST", "/projects", json={"name": "mine"}).status_code == 201
    image = register(client, user_id).json()
    submit(client, image).raise_for_status()
    return user_id, client


def register(client, user_id, **changes):
    arguments = {
        "p_object_key": new_image_key(user_id, "image/png"),
        "p_content_type": "image/png",
        "p_size_bytes": 10,
        "p_width": 4,
        "p_height": 3,
    }
    return client.call("register_image", **{**arguments, **changes})


def submit(client, image, prompts=("cat",), **more):
    return client.call("submit_segmentation", p_image_url=image["image_url"], p_text_prompts=list(prompts), **more)


ROWS = {
    "profiles": {"user_id": "OWN", "credits": 1000},
    "credit_ledger": {"user_id": "OWN", "delta": 1000, "reason": "grant"},
    "projects": {"user_id": "OTHER", "name": "planted"},
    "images": {
        "user_id": "OWN", "object_key": "users/OWN/images/a.png", "image_url": "http://169.254.169.254/",
        "content_type": "image/png", "size_bytes": 1, "width": 1, "height": 1,
    },
    "segmentation_results": {
        "user_id": "OWN", "source_image_url": "http://169.254.169.254/", "text_prompts": ["cat"],
        "text_prompt": "cat", "fingerprint": "x", "status": "done",
    },
}  # fmt: skip
CHANGES = {
    "profiles": {"credits": 1000},
    "credit_ledger": {"delta": 1000},
    "projects": {"user_id": "OTHER"},
    "images": {"image_url": "http://169.254.169.254/"},
    "segmentation_results": {"status": "done"},
}


def filled(row, own, other):
    return {
        name: value.replace("OWN", own).replace("OTHER", other) if isinstance(value, str) else value
        for name, value in row.items()
    }


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", ["no token", "anon", "anonymous user", "user", "service_role"])
def test_each_role_reads_what_it_may_and_writes_nothing(project, sign_up, with_token, service, table, role):
    other, _ = with_everything(sign_up)
    own, user = with_everything(sign_up)
    before = project.database.execute(f"select to_jsonb(t) from public.{table} t order by 1")
    client = {
        "no token": lambda: with_token(),
        "anon": lambda: with_token(project.issuer.role_token("anon")),
        "anonymous user": lambda: with_token(project.issuer.user_token(own, is_anonymous=True)),
        "user": lambda: user,
        "service_role": lambda: service,
    }[role]()
    seen = client.rows(table)
    owners = {row["user_id"] for row in seen.json()} if seen.status_code == 200 else None
    expected = {"anonymous user": set(), "user": {own}, "service_role": {own, other}}
    assert owners == expected.get(role)

    row, change = filled(ROWS[table], own, other), filled(CHANGES[table], own, other)
    attempts = [
        client.send("POST", f"/{table}", json=row),
        client.send("POST", f"/{table}", json=row, headers={"Prefer": "resolution=merge-duplicates"}),
        client.send("PATCH", f"/{table}", json=change, params={"user_id": f"eq.{own}"}),
        client.send("PATCH", f"/{table}", json=change, params={"user_id": f"eq.{other}"}),
        client.send("DELETE", f"/{table}", params={"user_id": f"eq.{other}"}),
    ]
    if (table, role) != ("projects", "user"):  # the one thing that users may delete themselves
        attempts.append(client.send("DELETE", f"/{table}", params={"user_id": f"eq.{own}"}))
    refused = [answer.status_code in (401, 403) for answer in attempts]
    harmless = table == "projects" and role in ("user", "anonymous user")  # a delete that sees no row succeeds
    assert all(refused) or (harmless and refused[:4] == [True] * 4)
    assert project.database.execute(f"select to_jsonb(t) from public.{table} t order by 1") == before


@pytest.mark.parametrize("function", sorted(USER_FUNCTIONS | SERVICE_FUNCTIONS | EVERYBODYS_FUNCTIONS))
def test_functions_belong_to_their_roles(project, sign_up, with_token, service, function):
    _, user = sign_up()
    callers = {
        "anon": with_token(),
        "user": user,
        "service": service,
    }
    rows = project.database.execute(
        "select proname, has_function_privilege('anon', oid, 'execute'), "
        "has_function_privilege('authenticated', oid, 'execute'), "
        "has_function_privilege('service_role', oid, 'execute') "
        "from pg_proc where pronamespace = 'public'::regnamespace and proname = %s",
        (function,),
    )
    everybody = function in EVERYBODYS_FUNCTIONS
    allowed = (everybody, everybody or function in USER_FUNCTIONS, everybody or function in SERVICE_FUNCTIONS)
    assert rows == [(function, *allowed)]
    for client, may in zip(callers.values(), allowed, strict=True):
        # without arguments: PostgREST looks for the function before the database judges the caller
        status = client.call(function).status_code
        assert may or status in (401, 403, 404)


def test_an_anonymous_user_can_do_nothing(project, sign_up):
    user_id, client = sign_up(is_anonymous=True)
    image_url = f"{PUBLIC_BASE}/{new_image_key(user_id, 'image/png')}"
    for answer in (
        register(client, user_id),
        submit(client, {"image_url": image_url}),
        client.call("my_account"),
        client.call("cancel_task", p_task_id=str(uuid.uuid4())),
        client.call("delete_task", p_task_id=str(uuid.uuid4())),
        client.call("delete_image", p_image_id=str(uuid.uuid4())),
        client.send("POST", "/projects", json={"name": "x"}),
    ):
        assert answer.status_code == 403
    assert project.database.execute("select count(*) from public.profiles") == [(0,)]


@pytest.mark.parametrize("claim", ["true", 1, "false", None, [], {}])
def test_only_a_plain_false_says_that_a_user_is_not_anonymous(sign_up, claim):
    _, client = sign_up(is_anonymous=claim)
    assert client.call("my_account").status_code == (200 if claim is None else 403)  # None: the claim is left out


def test_a_token_that_outlived_its_user_gets_nothing(project, with_token):
    client = with_token(project.issuer.user_token(str(uuid.uuid4())))
    assert client.call("my_account").status_code == 403


# --- the catalogue


def test_every_table_has_row_level_security(project):
    rows = project.database.execute(
        "select relname from pg_class where relkind in ('r', 'p') and not relrowsecurity "
        "and relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relname <> 'test_clock'"
    )
    assert rows == []


def test_every_function_pins_its_search_path(project):
    rows = project.database.execute(
        "select proname from pg_proc where pronamespace in ('public'::regnamespace, 'private'::regnamespace) "
        "and not coalesce(proconfig, '{}') @> array['search_path=\"\"']"
    )
    assert rows == []


def test_every_function_is_known_to_these_tests(project):
    rows = project.database.execute("select proname from pg_proc where pronamespace = 'public'::regnamespace")
    assert {name for (name,) in rows} == USER_FUNCTIONS | SERVICE_FUNCTIONS | EVERYBODYS_FUNCTIONS
    tables = project.database.execute("select tablename from pg_tables where schemaname = 'public'")
    assert {name for (name,) in tables} == set(TABLES)


def test_of_the_private_schema_users_reach_three_harmless_functions(project):
    functions = project.database.execute(
        "select proname from pg_proc where pronamespace = 'private'::regnamespace "
        "and (has_function_privilege('anon', oid, 'execute') "
        "or has_function_privilege('authenticated', oid, 'execute'))"
    )
    assert {name for (name,) in functions} == {"caller", "now", "is_text"}
    tables = project.database.execute(
        "select relname from pg_class, unnest(array['anon', 'authenticated', 'service_role']) as role "
        "where relnamespace = 'private'::regnamespace and relkind = 'r' "
        "and has_table_privilege(role, oid, 'select, insert, update, delete, truncate')"
    )
    assert tables == []


def test_nobody_may_empty_a_table_or_hang_triggers_on_it(project):
    rows = project.database.execute(
        "select relname, role from pg_class, unnest(array['anon', 'authenticated', 'service_role']) as role "
        "where relnamespace = 'public'::regnamespace and relkind = 'r' "
        "and has_table_privilege(role, oid, 'truncate, references, trigger')"
    )
    assert rows == []


def test_nobody_may_turn_the_numbers_of_rows(project):
    rows = project.database.execute(
        "select relname, role from pg_class, unnest(array['anon', 'authenticated', 'service_role']) as role "
        "where relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relkind = 'S' "
        "and has_sequence_privilege(role, oid, 'usage, select, update')"
    )
    assert rows == []


def test_the_database_counts_by_the_contracts_table(project):
    rows = project.database.execute("select tier::text, action, per_minute from private.rate_limits")
    assert {(tier, action): number for tier, action, number in rows} == {
        (tier.value, action.value): RATE_LIMITS[tier][action]
        for tier in RATE_LIMITS
        for action in (Action.UPLOAD, Action.SEGMENT, Action.RESULTS)
    }


# --- submitting


def test_forty_submits_at_once_cannot_spend_a_credit_twice(project, sign_up):
    user_id, client = sign_up(credits=7)
    image = register(client, user_id).json()
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda _: submit(client, image).status_code, range(40)))
    assert (statuses.count(200), statuses.count(402)) == (7, 33)
    assert project.database.execute("select credits from public.profiles where user_id = %s", (user_id,)) == [(0,)]
    sums = project.database.execute("select sum(delta) from public.credit_ledger where user_id = %s", (user_id,))
    assert sums == [(0,)]


def test_forty_repeats_of_one_key_make_one_task(sign_up):
    user_id, client = sign_up(credits=40)
    image = register(client, user_id).json()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: submit(client, image, p_idempotency_key="k").json(), range(40)))
    assert len({answer["task"]["id"] for answer in answers}) == 1
    assert sum(answer["created"] for answer in answers) == 1


def test_cancels_failures_and_reapers_at_once_refund_once(project, sign_up, service):
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


def test_a_minute_of_submits_is_limited_without_an_edge(sign_up):
    user_id, client = sign_up(tier="free")
    image = register(client, user_id).json()
    statuses = [submit(client, image).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2


def test_forty_at_once_are_counted_one_by_one(sign_up):
    user_id, client = sign_up(tier="free", credits=40)
    image = register(client, user_id).json()
    with ThreadPoolExecutor(40) as pool:
        uploads = list(pool.map(lambda _: register(client, user_id).status_code, range(40)))
        submits = list(pool.map(lambda _: submit(client, image).status_code, range(40)))
    assert (uploads.count(200), uploads.count(429)) == (9, 31)
    assert (submits.count(200), submits.count(429)) == (5, 35)


def test_a_minute_of_uploads_is_limited_without_an_edge(project, sign_up):
    user_id, client = sign_up(tier="free")
    made = [register(client, user_id) for _ in range(11)]
    assert [answer.status_code for answer in made] == [200] * 10 + [429]
    client.call("delete_image", p_image_id=made[0].json()["id"]).raise_for_status()
    assert register(client, user_id).status_code == 429  # deleting makes no room
    project.database.execute("update private.test_clock set ahead = '61 seconds'")
    assert register(client, user_id).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://localhost:5432/", "file:///etc/passwd", "", "gopher://x",
        f"{PUBLIC_BASE}/users/x/images/../../secret.png", f"{PUBLIC_BASE}@evil.example/", "//evil.example/x.png",
    ],
)  # fmt: skip
def test_no_address_but_ones_own_uploads_is_accepted(sign_up, url):
    _, client = sign_up()
    answer = submit(client, {"image_url": url})
    assert (answer.status_code, answer.json()["message"]) == (400, "UNKNOWN_IMAGE")


def test_anothers_image_and_a_guessed_one_are_refused_in_the_same_words(sign_up):
    other_id, other = sign_up()
    _, client = sign_up()
    foreign = register(other, other_id).json()
    guessed = {"image_url": f"{PUBLIC_BASE}/{new_image_key(other_id, 'image/png')}"}
    assert submit(client, foreign).content == submit(client, guessed).content


@pytest.mark.parametrize(
    "change",
    [
        {"p_object_key": "users/{other}/images/a.png"},
        {"p_object_key": "users/{own}/results/a.png"},
        {"p_object_key": "users/{own}/images/../../{other}/images/a.png"},
        {"p_object_key": "users/{own}/images/.hidden.png"},
        {"p_object_key": "users/{own}/images/a.svg"},
        {"p_object_key": "users/{own}/images/a.jpg"},
        {"p_object_key": "users/{own}/images/a.png\n"},
        {"p_object_key": "users/{own}/images/" + "a" * 500 + ".png"},
        {"p_object_key": "users/{own}/images/" + "a" * 250 + ".png"},
        {"p_object_key": "users/{own}/images/a/b.png"},
        {"p_object_key": "/users/{own}/images/a.png"},
        {"p_object_key": "x/users/{own}/images/a.png"},
        {"p_object_key": "users/{own}/images/%2e%2e%2fa.png"},
        {"p_object_key": "users/{own}/images/a.png?x=.png"},
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
def test_no_odd_image_can_be_registered(sign_up, change):
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
def test_the_database_takes_the_prompts_and_names_that_the_edge_takes(project, owner, text, limit):
    try:
        check_text(text, what="it", limit=limit)
        ours = True
    except ValueError:
        ours = False
    if "\0" in text:  # PostgreSQL knows no such text
        assert not ours
        return
    assert owner.execute("select private.is_text(%s, %s)", (text, limit)).fetchone() == (ours,)


@pytest.mark.parametrize("name", ["", " ", "x" * 121, "a\nb", "\u202eforged", "\u2028"])
def test_no_project_has_a_name_that_the_edge_refuses(sign_up, name):
    _, client = sign_up()
    made = client.send("POST", "/projects", json={"name": "good"}, headers={"Prefer": "return=representation"})
    assert client.send("POST", "/projects", json={"name": name}).status_code == 400
    (project,) = made.json()
    assert (
        client.send("PATCH", "/projects", params={"id": f"eq.{project['id']}"}, json={"name": name}).status_code == 400
    )
    assert [row["name"] for row in client.rows("projects").json()] == ["good"]


def test_a_minute_of_new_projects_is_limited_without_an_edge(project, sign_up):
    _, client = sign_up(tier="free")
    many = [{"name": f"p{number}"} for number in range(61)]
    assert client.send("POST", "/projects", json=many).status_code == 429  # a row each
    assert client.send("POST", "/projects", json=many[:60]).status_code == 201
    refused = client.send("POST", "/projects", json=many[0])
    assert (refused.status_code, json.loads(refused.json()["details"])["action"]) == (429, "results")
    client.send("DELETE", "/projects", params={"name": "neq.x"}).raise_for_status()
    assert client.send("POST", "/projects", json=many[0]).status_code == 429  # deleting makes no room
    project.database.execute("update private.test_clock set ahead = '61 seconds'")
    assert client.send("POST", "/projects", json=many[0]).status_code == 201


@pytest.fixture
def owner(project):
    with psycopg.connect(project.database.url, autocommit=True) as connection:
        yield connection


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


# --- workers cannot be bent either


def test_what_has_ended_stays_as_it_is(project, sign_up):
    with_everything(sign_up)
    (task,) = project.database.execute("select id from public.segmentation_results")[0]
    execute = project.database.execute
    for change in (
        "status = 'done', mask_image_url = 'x'",  # not from pending
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


def test_the_same_result_once_more_is_no_lost_lease(sign_up, service):
    with_everything(sign_up)
    (claim,) = service.call("worker_claim_batch", p_worker="w", p_limit=1, p_lease_s=30).json()
    result = {
        "p_task_id": claim["id"], "p_worker": "w", "p_attempt": 1, "p_mask_image_url": "https://x/m.png",
        "p_labels": ["cat"], "p_metadata": {}, "p_object_keys": ["m.png"],
    }  # fmt: skip
    first, again = service.call("worker_finish", **result), service.call("worker_finish", **result)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert service.call("worker_finish", **{**result, "p_mask_image_url": "https://x/n.png"}).status_code == 409


def test_a_user_who_leaves_takes_everything_along(project, sign_up):
    user_id, _ = with_everything(sign_up)
    project.database.execute("delete from auth.users where id = %s", (user_id,))
    for table in TABLES:
        assert project.database.execute(f"select * from public.{table}") == []
    for table in ("leases", "recent_actions"):
        assert project.database.execute(f"select * from private.{table}") == []
