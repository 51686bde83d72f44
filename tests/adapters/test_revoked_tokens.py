"""Tokens of an installation without Supabase can be revoked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3seg.adapters.jwt import JwtAuthenticator
from s3seg.adapters.local_auth import ISSUER, LocalKeys, user_id_of
from s3seg.adapters.revoked_tokens import RevokedTokens
from s3seg.errors import AuthInvalidError, UnavailableError

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(tmp_path: Path) -> LocalKeys:
    return LocalKeys(tmp_path / "key.pem")


async def test_revoked_tokens_are_refused_and_later_ones_accepted(keys: LocalKeys, tmp_path: Path) -> None:
    authenticator = JwtAuthenticator(
        keys, issuers=[ISSUER], revoked_at=RevokedTokens(tmp_path / "auth" / "revoked.json").revoked_at
    )
    old, others = keys.mint("ann"), keys.mint("bob")
    assert (await authenticator.authenticate(old)).user_id == user_id_of("ann")
    RevokedTokens(tmp_path / "auth" / "revoked.json").revoke(user_id_of("ann"))  # as another process does
    with pytest.raises(AuthInvalidError, match="revoked"):
        await authenticator.authenticate(old)
    assert (await authenticator.authenticate(others)).user_id == user_id_of("bob")
    assert (await authenticator.authenticate(keys.mint("ann"))).user_id == user_id_of("ann")
    RevokedTokens(tmp_path / "auth" / "revoked.json").revoke(user_id_of("bob"))
    for token in (old, others):
        with pytest.raises(AuthInvalidError, match="revoked"):
            await authenticator.authenticate(token)


def test_revocations_at_the_same_time_all_count(tmp_path: Path) -> None:
    path = tmp_path / "auth" / "revoked.json"
    users = [f"user {number}" for number in range(8)]
    with ThreadPoolExecutor(len(users)) as threads:  # each with a lock of its own, as processes have
        list(threads.map(lambda user: RevokedTokens(path).revoke(user), users))
    assert [user for user in users if RevokedTokens(path).revoked_at(user) is None] == []
    assert {file.name for file in path.parent.iterdir()} <= {"revoked.json", "revoked.lock"}


def test_the_list_is_private(tmp_path: Path) -> None:
    RevokedTokens(tmp_path / "auth" / "revoked.json").revoke("someone")
    assert (tmp_path / "auth" / "revoked.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "auth").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["{", "[]", '{"ann": "yesterday"}'])
async def test_a_damaged_list_lets_nobody_in(keys: LocalKeys, tmp_path: Path, content: str) -> None:
    (tmp_path / "revoked.json").write_text(content)
    authenticator = JwtAuthenticator(
        keys, issuers=[ISSUER], revoked_at=RevokedTokens(tmp_path / "revoked.json").revoked_at
    )
    with pytest.raises(UnavailableError, match="damaged"):
        await authenticator.authenticate(keys.mint("ann"))
