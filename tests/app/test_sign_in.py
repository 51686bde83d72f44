"""What the edge tells about signing in, as the settings say."""

import pytest

from s3seg.api.additions import SignInResponse
from s3seg.app.settings import Settings
from s3seg.app.sign_in import sign_in_of
from s3seg.commands.serve import print_access

SUPABASE = {
    "authenticator": "supabase",
    "task_store": "supabase",
    "supabase_url": "https://ref.supabase.co",
    "supabase_publishable_key": "sb_publishable_x",
}


def settings(**chosen):
    return Settings(_env_file=None, **chosen)


@pytest.mark.parametrize("authenticator", ["local", "mine.package:factory"])
def test_tokens_of_the_operator(authenticator):
    told = sign_in_of(settings(**{**SUPABASE, "authenticator": authenticator, "supabase_realtime": True}))
    assert told.model_dump() == {"kind": "token", "realtime": False}


@pytest.mark.parametrize(("store", "realtime"), [("supabase", True), ("sqlite", False)])
def test_realtime_is_offered_only_where_tasks_are_in_the_project(store, realtime):
    told = sign_in_of(settings(**{**SUPABASE, "task_store": store, "supabase_realtime": True}))
    assert told == SignInResponse(
        kind="supabase", supabase_url="https://ref.supabase.co", supabase_key="sb_publishable_x", realtime=realtime
    )


def test_a_key_that_is_not_set_is_left_out():
    told = sign_in_of(settings(authenticator="supabase", supabase_url="https://ref.supabase.co"))
    assert told.model_dump() == {"kind": "supabase", "supabase_url": "https://ref.supabase.co", "realtime": False}


def test_an_edge_on_supabase_prints_how_to_sign_in(capsys):
    print_access(settings(**SUPABASE, playground=False), "https://s3seg.example", "", show_token=True)
    assert capsys.readouterr().out.splitlines() == [
        "export S3SEG_URL=https://s3seg.example",
        "To sign in: s3seg login https://s3seg.example",
    ]
