"""Tokens as Supabase Auth mints them, whose public keys PostgREST and our verifier both get."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER_PATH = "/auth/v1"


class TokenIssuer:
    """Stands where Supabase Auth is: an ES256 key, its JWKS, and tokens signed with it."""

    def __init__(self, issuer: str = "https://project.example/auth/v1") -> None:
        self.issuer = issuer
        self.key_id = str(uuid.uuid4())
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> dict[str, Any]:
        """The public keys."""
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**jwk, "kid": self.key_id, "alg": "ES256", "use": "sig", "key_ops": ["verify"]}]}

    def user_token(self, user_id: str, **changes: Any) -> str:
        """A signed-in user's token; a claim changed to None is left out."""
        return self.sign({"sub": user_id, "role": "authenticated", "is_anonymous": False, **changes})

    def role_token(self, role: str) -> str:
        """What the gateway puts in the place of an API key."""
        return self.sign({"role": role})

    def sign(self, claims: dict[str, Any], *, header: dict[str, Any] | None = None) -> str:
        """Sign claims, with the usual ones added."""
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
