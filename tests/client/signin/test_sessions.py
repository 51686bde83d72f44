"""What a sign-in leaves on a machine."""

import json
import os
import stat

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import pytest
from pydantic import SecretStr

from s3seg.client.signin import sessions
from s3seg.client.signin.discovery import Project
from s3seg.client.signin.sessions import SessionStore, StoredSession, service_of
from s3seg.errors import ConfigurationError
from tests.helpers.signing_in import MemoryKeyring

SERVICE = "https://s3seg.example"
SESSION = StoredSession(
    service=SERVICE,
    user_id="5f0d0c62-6a0e-4c3d-9d3b-0f3f0c1c7a11",
    name="ann@example.com",
    project=Project(url="https://ref.supabase.co", key="sb_publishable_x", realtime=True),
    access_token=SecretStr("ACCESS-SECRET"),
    refresh_token=SecretStr("REFRESH-SECRET"),
    renew_at=1000.0,
    expires_at=1060.0,
)
system_keyring = sessions.system_keyring  # before the fixture replaces it


def files(store):
    return {path.name: path.read_text() for path in store._folder.iterdir() if path.suffix == ".json"}


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://s3seg.example",
            "https://S3SEG.example/",
            "HTTPS://s3seg.example:443",
            " https://s3seg.example/api/v1 ",
        ),
        "https://s3seg.example/",
    ],
)
def test_one_service_has_one_sign_in_however_its_url_is_written(url):
    assert service_of(url) == SERVICE


def test_services_with_another_path_port_or_scheme_are_others():
    urls = [
        "https://a.example",
        "http://a.example",
        "https://a.example:8443",
        "https://a.example/seg",
        "http://[::1]:8000",
    ]
    assert [service_of(url) for url in urls] == urls


def test_what_is_written_is_read_again(store):
    assert store.read(SERVICE) is None
    assert store.write(SESSION) == store.read(SERVICE) == SESSION
    assert store.services() == [SERVICE]
    assert store.has(SERVICE)
    assert not store.has("https://other.example")


def test_several_services_are_kept_apart(store):
    other = StoredSession(service="http://127.0.0.1:8000", user_id="", access_token=SecretStr("TOKEN"))
    store.write(SESSION)
    store.write(other)
    assert store.read(SERVICE) == SESSION
    assert store.read(other.service) == other
    assert store.delete(SERVICE)
    assert not store.delete(SERVICE)
    assert store.services() == [other.service]


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_only_the_owner_can_read_files_and_folder_whatever_the_umask_is(store):
    before = os.umask(0)
    try:
        with store.locked(SERVICE):
            store.write(SESSION)
    finally:
        os.umask(before)
    assert stat.S_IMODE(store._folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in store._folder.iterdir()} == {0o600}


def test_with_a_keyring_the_refresh_token_is_in_it_and_not_in_the_file(tmp_path):
    kept = MemoryKeyring()
    store = SessionStore(tmp_path, keyring=kept)
    assert store.write(SESSION).kept_in == "keyring"
    assert kept.kept == {("s3seg", SERVICE): "REFRESH-SECRET"}
    assert "REFRESH-SECRET" not in "".join(files(store).values())
    assert store.read(SERVICE).refresh_token == SecretStr("REFRESH-SECRET")
    store.delete(SERVICE)
    assert kept.kept == {}


def test_with_a_keyring_a_token_of_the_operator_is_in_it(tmp_path):
    kept = MemoryKeyring()
    store = SessionStore(tmp_path, keyring=kept)
    store.write(StoredSession(service=SERVICE, user_id="", access_token=SecretStr("TOKEN-SECRET")))
    assert "TOKEN-SECRET" not in "".join(files(store).values())
    assert store.read(SERVICE).access_token == SecretStr("TOKEN-SECRET")


def test_a_locked_keyring_is_passed_by_when_signing_in(tmp_path):
    store = SessionStore(tmp_path, keyring=MemoryKeyring(locked=True))
    assert store.write(SESSION).kept_in == "file"
    assert store.read(SERVICE) == SESSION


def test_a_keyring_that_is_locked_later_is_named_with_the_remedy(tmp_path):
    kept = MemoryKeyring()
    store = SessionStore(tmp_path, keyring=kept)
    store.write(SESSION)
    kept.locked = True
    with pytest.raises(
        ConfigurationError, match=r"unlock it, or sign in again with: s3seg login https://s3seg\.example"
    ):
        store.read(SERVICE)


def test_a_keyring_that_is_locked_between_two_renewals_loses_no_token(tmp_path):
    kept = MemoryKeyring()
    store = SessionStore(tmp_path, keyring=kept)
    store.write(SESSION)
    kept.locked = True
    assert store.write(SESSION).kept_in == "file"
    assert SessionStore(tmp_path, keyring=kept).read(SERVICE).refresh_token == SecretStr("REFRESH-SECRET")


class Plain(keyring.backend.KeyringBackend):
    """A backend that does not protect what it keeps says so with its priority."""

    priority = 0.5

    def get_password(self, service, username):
        raise AssertionError

    def set_password(self, service, username, password):
        raise AssertionError

    def delete_password(self, service, username):
        raise AssertionError


class Good(Plain):
    priority = 5


@pytest.mark.parametrize(
    ("backend", "used"),
    [(keyring.backends.fail.Keyring, False), (keyring.backends.null.Keyring, False), (Plain, False), (Good, True)],
)
def test_a_keyring_is_used_only_if_it_protects_what_it_keeps(backend, used, monkeypatch):
    made = backend()
    monkeypatch.setattr(keyring, "get_keyring", lambda: made)
    assert system_keyring() is (made if used else None)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b"null", b'{"service": 1}', "half", "no secret", "project"],
)
def test_a_damaged_sign_in_says_what_to_do(store, damage):
    store.write(SESSION)
    (path,) = (one for one in store._folder.iterdir() if one.suffix == ".json")
    record = json.loads(path.read_text())
    if damage == "half":
        damage = path.read_bytes()[: path.stat().st_size // 2]
    elif damage == "no secret":
        damage = json.dumps({**record, "secret": None}).encode()
    elif damage == "project":
        damage = json.dumps({**record, "project": {"address": "x"}}).encode()
    path.write_bytes(damage)
    with pytest.raises(ConfigurationError, match=r"damaged; sign in again with: s3seg login https://s3seg\.example"):
        store.read(SERVICE)
    store.write(SESSION)
    assert store.read(SERVICE) == SESSION


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    store = SessionStore(tmp_path / "taken" / "sign-ins")
    with pytest.raises(ConfigurationError, match="sign-ins"):
        store.write(SESSION)
    with pytest.raises(ConfigurationError, match="sign-ins"), store.locked(SERVICE):
        raise AssertionError


def test_a_process_that_died_while_writing_leaves_the_earlier_sign_in(store, monkeypatch):
    store.write(SESSION)
    other = StoredSession(service=SERVICE, user_id="", access_token=SecretStr("OTHER"))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ConfigurationError, match="No space left"):
            store.write(other)
    assert store.read(SERVICE) == SESSION
    assert store.write(SESSION) == SESSION


def test_secrets_are_in_no_repr():
    assert "SECRET" not in repr(SESSION)
    assert "SECRET" not in repr(sessions._record_of(SESSION)["project"])
