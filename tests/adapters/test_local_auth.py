"""Local tokens: the key file, and attacks on the signature algorithm."""

import base64
import hmac
import json
import os
import stat
import subprocess
import sys
import uuid

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from s3seg.adapters.jwt import JwtAuthenticator
from s3seg.adapters.local_auth import ISSUER, LocalKeys, user_id_of
from s3seg.errors import AuthInvalidError, ConfigurationError, UnavailableError
from s3seg.tasks.limits import Tier
from s3seg.testing import AuthenticatorSuite
from s3seg.testing.access import claims_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def keys(tmp_path):
    return LocalKeys(tmp_path / "auth" / "key.pem")


@pytest.fixture
def authenticator(keys):
    return JwtAuthenticator(keys, issuers=[ISSUER])


class TestLocalAuth(AuthenticatorSuite):
    @pytest.fixture
    def authenticator(self, keys):
        return JwtAuthenticator(keys, issuers=[ISSUER])

    @pytest.fixture
    def mint(self, keys):
        key = keys._load()

        def sign(header=None, **claims):
            return jwt.encode(
                {"iss": ISSUER, **claims},
                key,
                algorithm="ES256",
                headers={"kid": keys._key_id, **(header or {})},
            )

        return sign


async def test_a_deleted_key_is_told_and_no_new_one_is_made_while_the_service_runs(keys, authenticator, tmp_path):
    token = keys.mint("alice")
    path = tmp_path / "auth" / "key.pem"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(UnavailableError, match="the signing key was deleted while the service ran; restore it"):
        await authenticator.check()
    assert not path.exists()
    assert (await authenticator.authenticate(token)).user_id == user_id_of("alice")  # with the key in memory
    path.write_bytes(kept)
    await authenticator.check()


async def test_a_minted_token_is_accepted(keys, authenticator):
    identity = await authenticator.authenticate(keys.mint("alice", tier=Tier.PRO))
    assert (identity.user_id, identity.tier) == (user_id_of("alice"), Tier.PRO)
    assert (await authenticator.authenticate(keys.mint("alice"))).tier is None


async def test_a_minted_token_has_the_claims_of_supabase_auth(keys):
    claims = jwt.decode(keys.mint("alice"), options={"verify_signature": False})
    assert set(claims) >= {"iss", "sub", "aud", "exp", "iat", "role", "aal", "session_id", "is_anonymous"}
    assert claims["aud"] == claims["role"] == "authenticated"
    assert claims["is_anonymous"] is False
    uuid.UUID(claims["sub"])


async def test_a_token_expires(keys, authenticator):
    with pytest.raises(AuthInvalidError, match="expired"):
        await authenticator.authenticate(keys.mint("alice", ttl_s=-11))
    await authenticator.authenticate(keys.mint("alice", ttl_s=-5))  # within the leeway


def test_a_name_is_always_the_same_user_and_a_uuid_is_used_as_it_is():
    some = str(uuid.uuid4())
    assert user_id_of(some.upper()) == some
    assert user_id_of("alice") == user_id_of("alice") != user_id_of("bob")


async def test_only_its_owner_can_read_the_key(keys, tmp_path):
    keys.mint("alice")
    path = tmp_path / "auth" / "key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key.pem"]
    assert b"PRIVATE KEY" in path.read_bytes()


async def test_another_process_accepts_the_tokens(keys, tmp_path):
    other = JwtAuthenticator(LocalKeys(tmp_path / "auth" / "key.pem"), issuers=[ISSUER])
    token = keys.mint("alice")
    assert (await other.authenticate(token)).user_id == user_id_of("alice")


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    script = (
        "import sys, pathlib\n"
        "from s3seg.adapters.local_auth import LocalKeys\n"
        "print(LocalKeys(pathlib.Path(sys.argv[1])).jwks())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    path = tmp_path / "auth" / "key.pem"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert len(printed) == 1
    assert b"P-256" in printed.pop()
    assert [file.name for file in path.parent.iterdir()] == ["key.pem"]


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
async def test_an_invalid_key_file_is_named(tmp_path, content):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"key\.pem"):
        LocalKeys(path).mint("alice")


async def test_a_key_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(ConfigurationError, match="P-256"):
        LocalKeys(path).mint("alice")


async def test_the_published_key_verifies_the_tokens(keys):
    (jwk,) = keys.jwks()["keys"]
    assert "d" not in jwk
    token = keys.mint("alice")
    claims = jwt.decode(token, jwt.PyJWK(jwk), algorithms=["ES256"], audience="authenticated")
    assert claims["sub"] == user_id_of("alice")
    assert jwt.get_unverified_header(token)["kid"] == jwk["kid"]


def hs256(claims, secret, kid):
    """Sign with HS256 by hand, since PyJWT refuses to use a public key as a secret."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    head = {"alg": "HS256", "typ": "JWT", "kid": kid}
    signed = part(json.dumps(head).encode()) + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(hmac.digest(secret, signed, "sha256"))).decode()


async def test_a_public_key_is_not_accepted_as_a_shared_secret(keys, authenticator):
    """Algorithm confusion: HS256 with a public value as the secret."""
    kid = keys.jwks()["keys"][0]["kid"]
    public = keys._load().public_key()
    secrets = [
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        str(keys.jwks()["keys"][0]).encode(),
        kid.encode().ljust(32, b"0"),
    ]
    for secret in secrets:
        token = hs256({"iss": ISSUER, **claims_of(str(uuid.uuid4()))}, secret, kid)
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(token)


async def test_a_key_in_the_token_header_is_ignored(keys, authenticator):
    kid = keys.jwks()["keys"][0]["kid"]
    claims = {"iss": ISSUER, **claims_of(str(uuid.uuid4()))}
    own = ec.generate_private_key(ec.SECP256R1())
    own_jwk = jwt.algorithms.ECAlgorithm.to_jwk(own.public_key(), as_dict=True)
    for header in (
        {"kid": kid},
        {"kid": kid, "jwk": own_jwk},
        {"kid": kid, "jku": "https://evil.example/jwks.json"},
        {"jwk": own_jwk},
        {"kid": "../../dev/null"},
    ):
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(jwt.encode(claims, own, algorithm="ES256", headers=header))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(AuthInvalidError):
        await authenticator.authenticate(jwt.encode(claims, other, algorithm="RS256", headers={"kid": kid}))


async def test_a_token_without_issuer_is_refused(keys, authenticator):
    kid = keys.jwks()["keys"][0]["kid"]
    token = jwt.encode(claims_of(str(uuid.uuid4())), keys._load(), algorithm="ES256", headers={"kid": kid})
    with pytest.raises(AuthInvalidError):
        await authenticator.authenticate(token)
