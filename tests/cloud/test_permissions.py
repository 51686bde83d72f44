"""What the database lets each role read, write and call, without the edge: grants, policies and functions."""

from __future__ import annotations

import uuid

import pytest

from s3seg.tasks.limits import RATE_LIMITS, Action
from s3seg.tasks.object_keys import new_image_key
from s3seg.testing.harness import PUBLIC_BASE
from tests.cloud.direct_client import register, submit, user_with_data

TABLES = ("profiles", "credit_ledger", "projects", "images", "segmentation_results", "concepts")
OWN_BY_USERS = ("projects", "concepts")  # what users may insert and delete themselves
USER_FUNCTIONS = {
    "my_account", "register_image", "submit_segmentation", "cancel_task", "delete_task", "delete_image",
    "count_request", "find_repeat", "create_webhook", "my_webhooks", "delete_webhook", "my_deliveries",
    "replay_delivery", "close_my_account",
}  # fmt: skip
SERVICE_FUNCTIONS = {
    "worker_get", "worker_claim", "worker_claim_batch", "worker_renew", "worker_release", "worker_finish",
    "worker_fail", "worker_reap", "worker_backlog", "worker_claim_deliveries", "worker_settle_delivery",
    "operator_ensure", "operator_adjust", "operator_referenced",
    "operator_begin_job", "operator_known_users", "operator_close", "operator_collect", "operator_closed_accounts",
    "operator_emptied",
}  # fmt: skip
PUBLIC_FUNCTIONS = {"s3seg_info", "s3seg_realtime"}


@pytest.fixture(autouse=True)
def empty(project):
    project.empty()


ROWS = {
    "profiles": {"user_id": "OWN", "credits": 1000},
    "credit_ledger": {"user_id": "OWN", "delta": 1000, "reason": "grant"},
    "projects": {"user_id": "OTHER", "name": "planted"},
    "concepts": {"user_id": "OTHER", "name": "planted", "definition": {}},
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
    "concepts": {"name": "renamed"},
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
def test_each_role_reads_only_its_rows_and_writes_nothing(project, sign_up, with_token, service, table, role):
    other, _ = user_with_data(sign_up)
    own, user = user_with_data(sign_up)
    before = project.database.execute(f"select to_jsonb(t) from public.{table} t order by 1")
    client = {
        "no token": lambda: with_token(),
        "anon": lambda: with_token(project.issuer.role_token("anon")),
        "anonymous user": lambda: with_token(project.issuer.user_token(own, is_anonymous=True)),
        "user": lambda: user,
        "service_role": lambda: service,
    }[role]()
    columns = "user_id,delta,reason" if table == "credit_ledger" else "*"
    seen = client.rows(table, select=columns)
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
    if not (table in OWN_BY_USERS and role == "user"):  # users may delete their own
        attempts.append(client.send("DELETE", f"/{table}", params={"user_id": f"eq.{own}"}))
    refused = [answer.status_code in (401, 403) for answer in attempts]
    harmless = table in OWN_BY_USERS and role in ("user", "anonymous user")  # a delete without visible rows succeeds
    assert all(refused) or (harmless and refused[:4] == [True] * 4)
    assert project.database.execute(f"select to_jsonb(t) from public.{table} t order by 1") == before


HIDDEN_COLUMNS = [
    *[(table, column) for table in TABLES for column in ("xmin", "cmin", "ctid", "tableoid")],
    ("credit_ledger", "id"),
]


@pytest.mark.parametrize(("table", "column"), HIDDEN_COLUMNS)
def test_users_cannot_read_columns_that_grow_with_what_all_users_do(sign_up, table, column):
    _, user = user_with_data(sign_up)
    visible = "user_id"
    assert user.rows(table, select=visible).status_code == 200
    assert user.rows(table, select=f"{visible},{column}").status_code == 403
    assert user.rows(table, select=visible, order=column).status_code in (403, 404)  # 404: some have no order
    assert user.rows(table, select=visible, **{column: "not.is.null"}).status_code == 403


def test_a_user_counts_only_their_own_rows(sign_up):
    for _ in range(3):
        user_with_data(sign_up)
    _, user = user_with_data(sign_up)
    for table in TABLES:
        answer = user.send("GET", f"/{table}", params={"select": "user_id"}, headers={"Prefer": "count=exact"})
        total = int(answer.headers["content-range"].partition("/")[2])
        assert total == len(user.rows(table, select="user_id").json())


@pytest.mark.parametrize("function", sorted(USER_FUNCTIONS | SERVICE_FUNCTIONS | PUBLIC_FUNCTIONS))
def test_functions_can_be_called_by_their_roles_only(project, sign_up, with_token, service, function):
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
    everybody = function in PUBLIC_FUNCTIONS
    allowed = (everybody, everybody or function in USER_FUNCTIONS, everybody or function in SERVICE_FUNCTIONS)
    assert rows == [(function, *allowed)]
    for client, may in zip(callers.values(), allowed, strict=True):
        # called without arguments, so PostgREST may not find the function at all
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
def test_only_false_means_that_a_user_is_not_anonymous(sign_up, claim):
    _, client = sign_up(is_anonymous=claim)
    assert client.call("my_account").status_code == (200 if claim is None else 403)  # None: the claim is left out


def test_the_token_of_a_deleted_user_is_refused(project, with_token):
    client = with_token(project.issuer.user_token(str(uuid.uuid4())))
    assert client.call("my_account").status_code == 403


# --- grants and policies in the catalogue


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


def test_all_functions_and_tables_are_covered_by_these_tests(project):
    rows = project.database.execute("select proname from pg_proc where pronamespace = 'public'::regnamespace")
    assert {name for (name,) in rows} == USER_FUNCTIONS | SERVICE_FUNCTIONS | PUBLIC_FUNCTIONS
    tables = project.database.execute("select tablename from pg_tables where schemaname = 'public'")
    assert {name for (name,) in tables} == set(TABLES)


def test_users_can_call_only_three_functions_of_the_private_schema(project):
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


def test_nobody_may_truncate_a_table_or_add_triggers(project):
    rows = project.database.execute(
        "select relname, role from pg_class, unnest(array['anon', 'authenticated', 'service_role']) as role "
        "where relnamespace = 'public'::regnamespace and relkind = 'r' "
        "and has_table_privilege(role, oid, 'truncate, references, trigger')"
    )
    assert rows == []


def test_nobody_may_use_the_sequences(project):
    rows = project.database.execute(
        "select relname, role from pg_class, unnest(array['anon', 'authenticated', 'service_role']) as role "
        "where relnamespace in ('public'::regnamespace, 'private'::regnamespace) and relkind = 'S' "
        "and has_sequence_privilege(role, oid, 'usage, select, update')"
    )
    assert rows == []


def test_the_rate_limits_are_the_default_ones(project):
    rows = project.database.execute("select tier::text, action, per_minute from private.rate_limits")
    assert {(tier, action): number for tier, action, number in rows} == {
        (tier.value, action.value): RATE_LIMITS[tier][action]
        for tier in RATE_LIMITS
        for action in (Action.UPLOAD, Action.SEGMENT, Action.RESULTS)
    }
