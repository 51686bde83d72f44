"""Which requests the edge lets in: tokens, and a rate limit for every operation."""

import base64
import json
import time
import uuid

import jwt
import pytest

from s3seg.adapters.local_auth import ISSUER
from s3seg.api.additions import (
    MeResponse,
)
from s3seg.app import local_keys
from s3seg.app.settings import Settings
from s3seg.tasks.limits import Action, Tier
from tests.helpers.running_edge import running
from tests.web.contract_bodies import data_of, error_of
from tests.web.secured_routes import SECURED

pytestmark = pytest.mark.anyio


class TestRateLimits:
    @pytest.mark.parametrize(("method", "path"), SECURED)
    async def test_every_operation_of_a_user_has_a_limit(self, tmp_path, monkeypatch, method, path):
        none = {tier: dict.fromkeys(Action, 0) for tier in Tier}
        monkeypatch.setattr(Settings, "rates", property(lambda settings: none))
        async with running(tmp_path) as service:
            user = await service.user()
            body = {"image_url": service.settings.public_base_url + "/x.png", "text_prompt": "cat"}
            refused = await user(method, path, **({"json": body} if path == "/api/v1/segment" else {}))
            assert error_of(refused) == (429, "RATE_LIMITED")
            assert refused.headers["ratelimit"].split(";")[1] == "r=0"


class TestAuthentication:
    async def test_the_list_of_secured_routes_is_complete(self, service):
        paths = (await service.http.get("/openapi.json")).json()["paths"]
        secured = {
            (method.upper(), path)
            for path, methods in paths.items()
            for method, operation in methods.items()
            if operation["security"]
        }
        assert len(secured) == len(SECURED)
        assert {method for method, _ in secured} == {method for method, _ in SECURED}

    @pytest.mark.parametrize(("method", "path"), SECURED)
    async def test_no_route_opens_without_a_token(self, service, method, path):
        response = await service.http.request(method, path)
        assert error_of(response) == (401, "AUTH_REQUIRED")
        assert response.headers["www-authenticate"] == "Bearer"
        response = await service.http.request(method, path, headers={"Authorization": "Bearer x.y.z"})
        assert error_of(response) == (401, "AUTH_INVALID")
        assert response.headers["www-authenticate"] == "Bearer"

    def _claims(self, **changes):
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": "authenticated",
            "sub": str(uuid.uuid4()),
            "role": "authenticated",
            "iat": now,
            "exp": now + 600,
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def _sign(self, service, claims, **header):
        keys = local_keys(service.settings)
        key = keys._load()
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": keys._key_id, **header})

    async def _ask(self, service, token):
        return await service.http.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})

    async def test_a_valid_token_is_accepted(self, service):
        data_of(await self._ask(service, self._sign(service, self._claims())), MeResponse)

    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": 1},
            {"exp": None},
            {"iat": None},
            {"sub": None},
            {"sub": "admin"},
            {"aud": "anon"},
            {"aud": None},
            {"iss": "https://evil.example"},
            {"iss": None},
            {"nbf": 1 << 40},
            {"exp": "never"},
        ],
        ids=str,
    )
    async def test_claims_that_do_not_hold_are_invalid(self, service, changes):
        token = self._sign(service, self._claims(**changes))
        assert error_of(await self._ask(service, token)) == (401, "AUTH_INVALID")

    @pytest.mark.parametrize(
        "changes", [{"role": "anon"}, {"role": "service_role"}, {"role": None}, {"is_anonymous": True}]
    )
    async def test_a_good_token_of_the_wrong_kind_is_forbidden(self, service, changes):
        token = self._sign(service, self._claims(**changes))
        assert error_of(await self._ask(service, token)) == (403, "FORBIDDEN")

    @pytest.mark.parametrize(
        "header",
        [
            {"kid": "other"},
            {"kid": ""},
            {"crit": ["exp"]},
            {"jku": "https://evil.example/jwks.json", "kid": "evil"},
        ],
        ids=str,
    )
    async def test_headers_that_ask_for_another_key_are_invalid(self, service, header):
        token = self._sign(service, self._claims(), **header)
        assert error_of(await self._ask(service, token)) == (401, "AUTH_INVALID")

    async def test_confused_algorithms_are_invalid(self, service):
        keys = local_keys(service.settings)
        public = json.dumps(keys.jwks()["keys"][0])
        for algorithm, key in [("none", None), ("HS256", public), ("HS384", "secret")]:
            token = _encode(self._claims(), key, algorithm, keys._key_id)
            assert error_of(await self._ask(service, token)) == (401, "AUTH_INVALID")

    @pytest.mark.parametrize("token", ["a" * 200_000, "..", "e30.e30.", "\x80\xff", "a.b", "{}"])
    async def test_malformed_tokens_are_invalid(self, service, token):
        response = await service.http.get("/api/v1/me", headers={"Authorization": b"Bearer " + token.encode("latin-1")})
        assert error_of(response) == (401, "AUTH_INVALID")

    async def test_a_changed_token_is_invalid(self, service, ann):
        await ann("GET", "/api/v1/me")  # so that the true one is remembered
        head, body, signature = ann.token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims["sub"] = str(uuid.uuid4())
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        for token in (f"{head}.{forged}.{signature}", f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}."):
            assert error_of(await self._ask(service, token)) == (401, "AUTH_INVALID")


def _encode(claims, key, algorithm, key_id):
    """A token that PyJWT would refuse to make."""
    import hashlib
    import hmac

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": algorithm, "kid": key_id, "typ": "JWT"}) + b"." + part(claims)
    if key is None:
        return (signed + b".").decode()
    digest = hmac.new(key.encode(), signed, getattr(hashlib, "sha" + algorithm[2:])).digest()
    return (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()
