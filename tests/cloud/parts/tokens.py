"""Issues tokens in the format of Supabase Auth, which PostgREST and s3seg both verify."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER_PATH = "/auth/v1"


class TokenIssuer:
    """A stand-in for Supabase Auth: an ES256 key, its JWKS, and tokens signed with it."""

    def __init__(self, issuer: str = "https://project.example/auth/v1") -> None:
        self.issuer = issuer
        self.key_id = str(uuid.uuid4())
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set."""
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**jwk, "kid": self.key_id, "alg": "ES256", "use": "sig", "key_ops": ["verify"]}]}

    def user_token(self, user_id: str, **changes: Any) -> str:
        """Return the token of a signed-in user; claims that are None are left out."""
        return self.sign({"sub": user_id, "role": "authenticated", "is_anonymous": False, **changes})

    def role_token(self, role: str) -> str:
        """Return the token by which the gateway replaces an API key."""
        return self.sign({"role": role})

    def sign(self, claims: dict[str, Any], *, header: dict[str, Any] | None = None) -> str:
        """Sign claims, with defaults for the usual ones."""
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "aud": "authenticated",
            "iat": now,
            "exp": now + 3600,
            "app_metadata": {"provider": "email"},
            "user_metadata": {},
        }
        kept = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(kept, self.key, algorithm="ES256", headers={"kid": self.key_id, **(header or {})})
