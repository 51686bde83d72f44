import jwt
import pytest

from s3seg.adapters.jwt import JwtAuthenticator
from s3seg.adapters.local_auth import ISSUER, LocalKeys
from s3seg.testing import AuthenticatorSuite


class TestLocalAuth(AuthenticatorSuite):
    @pytest.fixture
    def keys(self, tmp_path):
        return LocalKeys(tmp_path / "auth" / "key.pem")

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
