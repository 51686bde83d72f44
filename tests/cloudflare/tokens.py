"""Tokens signed with each of the algorithms that Supabase Auth offers."""

from __future__ import annotations

import json
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from tests.cloud.parts.tokens import TokenIssuer


class ManyKeys(TokenIssuer):
    """An issuer with an ES256, an RS256 and an Ed25519 key; `user_token` takes the one named by ``algorithm``."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, tuple[str, Any]] = {
            "ES256": (self.key_id, self.key),
            "RS256": (str(uuid.uuid4()), rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            "EdDSA": (str(uuid.uuid4()), ed25519.Ed25519PrivateKey.generate()),
        }
        self.published = tuple(self.keys)

    def jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set with the keys that are published."""
        return {"keys": [self._jwk(algorithm) for algorithm in self.published]}

    def signed(self, user_id: str, algorithm: str, *, key_of: str | None = None, **changes: Any) -> str:
        """Return a user's token; ``key_of`` names the algorithm whose key id the header claims instead."""
        token = self.user_token(user_id, **changes)
        claims = jwt.decode(token, options={"verify_signature": False})
        key_id, key = self.keys[algorithm]
        if key_of is not None:
            key_id, _ = self.keys[key_of]
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id})

    def _jwk(self, algorithm: str) -> dict[str, Any]:
        key_id, key = self.keys[algorithm]
        jwk = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
        return {**jwk, "kid": key_id, "alg": algorithm, "use": "sig", "key_ops": ["verify"]}
