"""Settings are stripped and checked when they are read, and their values are in no message."""

import traceback

import pytest

from s3seg.app.settings import Settings
from s3seg.errors import ConfigurationError

SECRET = "SECRET0123456789"
SECRETS = (
    "api_secret_key",
    "api_secret_key_previous",
    "supabase_secret_key",
    "supabase_publishable_key",
    "r2_access_key_id",
    "r2_secret_access_key",
)
ALL_SECRETS = (*SECRETS, "supabase_jwt_secret", "database_url")


@pytest.mark.parametrize("name", ALL_SECRETS)
def test_white_space_around_a_secret_is_removed(monkeypatch, name):
    monkeypatch.setenv(f"S3SEG_{name.upper()}", " 0123456789abcdef0123456789abcdef\r\n")
    value = getattr(Settings(_env_file=None), name)
    assert getattr(value, "get_secret_value", lambda: value)() == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("between", ["\n", "\r", "\0", "\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(name, between):
    illegal = {name: between.join([SECRET, SECRET])}
    with pytest.raises(ConfigurationError, match=name.upper()) as raised:
        Settings(_env_file=None, **illegal)
    assert SECRET not in "".join(traceback.format_exception(raised.value)) + repr(raised.value)


@pytest.mark.parametrize("name", [name for name in ALL_SECRETS if name != "r2_access_key_id"])  # that one is an id
def test_secrets_are_in_no_repr(name):
    assert SECRET not in repr(Settings(_env_file=None, **{name: SECRET * 2}))
