"""Tokens of Supabase Auth, verified with its JWKS; every forged token is also sent to PostgREST."""

import base64
import gzip
import hashlib
import hmac
import json
import time
import uuid
from email.utils import formatdate

import anyio
import anyio.lowlevel
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import SecretStr

from s3seg.adapters.jwt import JwtAuthenticator
from s3seg.adapters.supabase import auth
from s3seg.adapters.supabase.auth import SupabaseKeys
from s3seg.errors import AuthInvalidError, ConfigurationError, UnavailableError
from s3seg.testing import AuthenticatorSuite
from s3seg.testing.access import claims_of

pytestmark = pytest.mark.anyio
ISSUER = "https://project.example/auth/v1"
SECRET = "a legacy secret of more than thirty-two bytes"


class TestSupabaseAuth(AuthenticatorSuite):
    @pytest.fixture
    def authenticator(self, project):
        url = f"{project.gateway.url}/auth/v1"
        return JwtAuthenticator(SupabaseKeys(f"{url}/.well-known/jwks.json"), issuers=[url])

    @pytest.fixture
    def mint(self, project):
        nothing = {"exp": None, "iat": None, "aud": None}  # leave out what the suite leaves out
        return lambda header=None, **claims: project.issuer.sign({**nothing, **claims}, header=header)


class KeyServer:
    """A JWKS server whose responses and clock are controlled by the test."""

    def __init__(self):
        self.keys = {}
        self.fetched = 0
        self.answer = lambda: (200, json.dumps({"keys": list(self.keys.values())}).encode(), {})
        self.now = 1000.0

    def source(self, **options):
        async def handle(request):
            self.fetched += 1
            await anyio.lowlevel.checkpoint()  # let other callers arrive in the meantime
            status, body, headers = self.answer()
            return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

        transport = httpx.MockTransport(handle)
        return SupabaseKeys("https://project.example/jwks", clock=lambda: self.now, transport=transport, **options)

    def add(self, key, *, algorithm, kid=None, **changes):
        """Publish the public key of a private key, and return its id."""
        kid = kid or str(uuid.uuid4())
        codec = jwt.get_algorithm_by_name(algorithm)
        jwk = codec.to_jwk(key.public_key(), as_dict=True)
        self.keys[kid] = {**jwk, "kid": kid, "alg": algorithm, "use": "sig", **changes}
        return kid


@pytest.fixture
def server():
    return KeyServer()


def es256():
    return ec.generate_private_key(ec.SECP256R1())


def signed(key, *, algorithm, kid, **claims):
    body = {**claims_of(str(uuid.uuid4())), "iss": ISSUER, **claims}
    return jwt.encode(body, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("ES256", es256),
        ("RS256", lambda: rsa.generate_private_key(65537, 2048)),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate),
    ],
)
async def test_asymmetric_keys_of_the_set_are_trusted(server, algorithm, make):
    key = make()
    kid = server.add(key, algorithm=algorithm)
    authenticator = JwtAuthenticator(server.source(), issuers=[ISSUER])
    await authenticator.authenticate(signed(key, algorithm=algorithm, kid=kid))
    with pytest.raises(AuthInvalidError):
        await authenticator.authenticate(signed(make(), algorithm=algorithm, kid=kid))
    with pytest.raises(AuthInvalidError):
        await authenticator.authenticate(signed(key, algorithm=algorithm, kid=None))


async def test_a_shared_secret_is_accepted_only_if_it_is_configured(server):
    token = signed(SECRET, algorithm="HS256", kid=None)
    with pytest.raises(AuthInvalidError):
        await JwtAuthenticator(server.source(), issuers=[ISSUER]).authenticate(token)
    keys = server.source(secret=SecretStr(SECRET))
    await JwtAuthenticator(keys, issuers=[ISSUER]).authenticate(token)
    assert SECRET not in repr(keys) + repr(await keys.find(None, "HS256"))
    with pytest.raises(ConfigurationError) as refused:
        server.source(secret=SecretStr("short"))
    assert "S3SEG_SUPABASE_JWT_SECRET" in str(refused.value)


async def test_a_symmetric_key_from_the_network_is_never_used(server):
    jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "kid": "k", "alg": "HS256"}
    server.keys["k"] = jwk
    authenticator = JwtAuthenticator(server.source(), issuers=[ISSUER])
    for kid in ("k", None):
        with pytest.raises(AuthInvalidError):
            await authenticator.authenticate(signed(SECRET, algorithm="HS256", kid=kid))


async def test_a_public_key_is_not_accepted_as_a_shared_secret(server):
    key = es256()
    kid = server.add(key, algorithm="ES256")
    authenticator = JwtAuthenticator(server.source(secret=SecretStr(SECRET)), issuers=[ISSUER])
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(AuthInvalidError):
        await authenticator.authenticate(
            hand_signed({"alg": "HS256", "kid": kid}, claims_of(str(uuid.uuid4())), public)
        )


def hand_signed(header, claims, secret):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    text = part(json.dumps(header).encode()) + b"." + part(json.dumps({"iss": ISSUER, **claims}).encode())
    return (text + b"." + part(hmac.new(secret, text, hashlib.sha256).digest())).decode()


@pytest.mark.parametrize("change", [{"use": "enc"}, {"alg": "RS256"}, {"alg": "ES512"}, {"d": "AAAA"}, {"x": "!"}])
async def test_a_key_of_another_kind_is_ignored(server, change):
    key = es256()
    kid = server.add(key, algorithm="ES256", kid="k", **change)
    with pytest.raises(AuthInvalidError):
        await JwtAuthenticator(server.source(), issuers=[ISSUER]).authenticate(signed(key, algorithm="ES256", kid=kid))


async def test_a_small_rsa_key_is_ignored(server):
    key = rsa.generate_private_key(65537, 1024)
    kid = server.add(key, algorithm="RS256")
    assert await server.source().find(kid, "RS256") is None


async def test_a_key_is_accepted_with_one_algorithm_only(server):
    kid = server.add(es256(), algorithm="ES256")
    keys = server.source()
    for other in ("RS256", "EdDSA", "HS256"):
        assert await keys.find(kid, other) is None


async def test_concurrent_callers_share_one_fetch(server):
    kid = server.add(es256(), algorithm="ES256")
    keys = server.source()
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(keys.find, kid, "ES256")
    assert server.fetched == 1


async def test_a_new_key_is_found_once_tokens_name_it(server):
    keys = server.source()
    old = server.add(es256(), algorithm="ES256")
    assert await keys.find(old, "ES256") is not None
    new = server.add(es256(), algorithm="ES256")
    del server.keys[old]
    server.now += auth.REFRESH_EVERY_S + 1
    assert await keys.find(new, "ES256") is not None
    assert await keys.find(old, "ES256") is None


async def test_unknown_key_ids_cause_few_fetches(server):
    keys = server.source()
    known = server.add(es256(), algorithm="ES256")
    await keys.find(known, "ES256")
    for _ in range(200):
        assert await keys.find(str(uuid.uuid4()), "ES256") is None
        server.now += 0.1
    assert server.fetched <= 3
    assert await keys.find(known, "ES256") is not None


async def test_known_keys_are_used_for_a_day_if_fetching_fails(server):
    keys = server.source()
    kid = server.add(es256(), algorithm="ES256")
    await keys.find(kid, "ES256")
    server.answer = lambda: (500, b"", {})
    server.now += auth.STALE_S - 1
    assert await keys.find(kid, "ES256") is not None
    server.now += 20
    with pytest.raises(UnavailableError):
        await keys.find(kid, "ES256")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: (302, b"", {"location": "https://elsewhere.example/jwks"}),
        lambda: (404, b"", {}),
        lambda: (200, b"{", {}),
        lambda: (200, b"[" * 60_000, {}),
        lambda: (200, b"[]", {}),
        lambda: (200, b" " * 70_000 + b'{"keys": []}', {}),
        lambda: (200, gzip.compress(b'{"keys": []}'), {"content-encoding": "gzip"}),
    ],
)
async def test_an_invalid_response_is_not_a_key_set(server, answer):
    server.answer = answer
    with pytest.raises((UnavailableError, ConfigurationError)):
        await server.source().find("k", "ES256")
    with pytest.raises((UnavailableError, ConfigurationError)):
        await server.source().check()
    assert server.fetched == 2  # no redirect was followed


async def test_a_set_has_sixteen_keys_at_most(server):
    kids = [server.add(es256(), algorithm="ES256") for _ in range(20)]
    keys = server.source()
    assert [await keys.find(kid, "ES256") is not None for kid in kids] == [True] * 16 + [False] * 4


async def test_a_project_without_asymmetric_keys_is_reported_with_advice(server):
    with pytest.raises(ConfigurationError) as refused:
        await server.source().check()
    assert "S3SEG_SUPABASE_JWT_SECRET" in str(refused.value)
    await server.source(secret=SecretStr(SECRET)).check()


@pytest.mark.parametrize(
    ("behind_s", "headers", "said"),
    [
        (0, {}, None),
        (8, {}, None),
        (60, {}, "behind"),
        (-60, {}, "ahead of"),
        (0, {"age": "500"}, None),  # a cache that renews the date
        (-500, {"age": "500"}, None),  # one that does not
        (60, {"age": "500"}, "behind"),
        (0, {"date": "yesterday"}, None),
        (60, {"age": "old"}, None),
    ],
)
async def test_a_wrong_clock_is_reported(server, behind_s, headers, said):
    server.add(es256(), algorithm="ES256")
    now, body = 1_800_000_000, json.dumps({"keys": list(server.keys.values())}).encode()
    server.answer = lambda: (200, body, {"date": formatdate(now + behind_s, usegmt=True), **headers})
    authenticator = JwtAuthenticator(server.source(wall_clock=lambda: now), issuers=[ISSUER])
    if said is None:
        await authenticator.probe()
    else:
        with pytest.raises(ConfigurationError, match=f"{said} .*NTP"):
            await authenticator.probe()
    await authenticator.check()  # the regular health check ignores the clock


# --- forged tokens, at s3seg and at PostgREST


def attacks(issuer):
    """Return tokens that must be refused."""
    user, now = str(uuid.uuid4()), int(time.time())
    good = issuer.user_token(user)
    head, body, signature = good.split(".")
    stranger = es256()
    own_jwk = jwt.get_algorithm_by_name("ES256").to_jwk(stranger.public_key(), as_dict=True)
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = claims_of(user, iss=issuer.issuer)

    def by_stranger(**header):
        return jwt.encode(claims, stranger, algorithm="ES256", headers=header)

    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return {
        "no signature": f"{head}.{body}.",
        "alg none": f"{none}.{body}.",
        "alg none with a signature": f"{none}.{body}.{signature}",
        "another's signature": f"{head}.{body}.{issuer.user_token(str(uuid.uuid4())).split('.')[2]}",
        "unknown key": by_stranger(kid="unknown"),
        "our key id, another key": by_stranger(kid=issuer.key_id),
        "brings its key": by_stranger(kid=issuer.key_id, jwk=own_jwk),
        "names an address of keys": by_stranger(kid="x", jku="https://evil.example/jwks"),
        "public key as secret": hand_signed({"alg": "HS256", "kid": issuer.key_id}, claims, public),
        "expired": issuer.user_token(user, exp=now - 120),
        "not yet": issuer.user_token(user, nbf=now + 600),
        "another audience": issuer.user_token(user, aud="somebody-else"),
        "200 kB": issuer.user_token(user, user_metadata={"x": "a" * 200_000}),
        "no token": "abc",
    }


ATTACKS = (
    *("no signature", "alg none", "alg none with a signature", "another's signature", "unknown key"),
    *("our key id, another key", "brings its key", "names an address of keys", "public key as secret"),
    *("expired", "not yet", "another audience", "200 kB", "no token"),
)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_forged_tokens_are_refused_by_s3seg_and_postgrest(project, attack):
    token = attacks(project.issuer)[attack]
    url = f"{project.gateway.url}/auth/v1"
    authenticator = JwtAuthenticator(SupabaseKeys(f"{url}/.well-known/jwks.json"), issuers=[url])
    await authenticator.authenticate(project.issuer.user_token(str(uuid.uuid4())))  # the setup works
    with pytest.raises(AuthInvalidError):
        await authenticator.authenticate(token)
    try:
        answer = httpx.get(f"{project.postgrest.url}/profiles", headers={"Authorization": f"Bearer {token}"})
    except httpx.TransportError:
        assert attack == "200 kB"  # PostgREST closes the connection while reading the headers
    else:
        assert answer.status_code in (400, 401)
