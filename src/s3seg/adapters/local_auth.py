"""Issues and verifies tokens without Supabase, with an ES256 key in a file."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
import time
import uuid
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from s3seg.errors import ConfigurationError, UnavailableError
from s3seg.tasks.limits import Tier
from s3seg.tasks.private_files import make_private, make_private_folder
from s3seg.tasks.records import VerificationKey

ISSUER = "https://s3seg.local/auth/v1"
"""The ``iss`` claim of local tokens."""

_NAMES = uuid.UUID("6f1c0a5e-7b1d-5f60-9a3e-2c4f6d8e0b12")  # UUID namespace of the names of local users


def user_id_of(name: str) -> str:
    """Return the user id of a local user: a UUID is used as it is, and any other name is hashed to a UUID."""
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(_NAMES, name))


class LocalKeys:
    """A `KeySource` with one ES256 key in a file that only its owner can read.

    The file is created when the key is first used. If several processes do so at once, they all use the same key.

    Args:
        path: The file of the private key (PEM, PKCS8).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._key_id = ""

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key with this id for this algorithm, or None."""
        key = self._key or await asyncio.to_thread(self._load)
        if key_id != self._key_id or algorithm != "ES256":
            return None
        return VerificationKey(key_id=self._key_id, algorithm="ES256", key=key.public_key())

    def mint(self, user: str, *, tier: Tier | None = None, ttl_s: int = 86_400) -> str:
        """Return a new token for a user, with the same claims as a token of Supabase Auth.

        Args:
            user: A UUID, or any name (see `user_id_of`).
            tier: The tier of the user's account if it does not exist yet; stored in ``app_metadata``.
            ttl_s: Lifetime of the token, in seconds.

        Raises:
            ConfigurationError: The key file cannot be read or created.
        """
        key = self._key or self._load()
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user_id_of(user),
            "aud": "authenticated",
            "exp": now + ttl_s,
            "iat": now,
            "role": "authenticated",
            "aal": "aal1",
            "session_id": str(uuid.uuid4()),
            "is_anonymous": False,
            "app_metadata": {"provider": "s3seg"} | ({"tier": tier.value} if tier else {}),
            "user_metadata": {"name": user},
        }
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": self._key_id})

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public key as a JSON Web Key Set, for other programs that verify the tokens."""
        key = self._key or self._load()
        return {"keys": [{**_public_jwk(key), "kid": self._key_id, "alg": "ES256", "use": "sig"}]}

    async def check(self) -> None:
        """Check that the key file can be read, and create it if it does not exist."""
        await asyncio.to_thread(self._load)

    async def aclose(self) -> None:
        """Do nothing: no file is kept open."""

    def _load(self) -> ec.EllipticCurvePrivateKey:
        if self._key is not None and not self._path.exists():
            # a new key would silently invalidate all tokens
            raise UnavailableError(
                "the signing key was deleted while the service ran; restore it, or restart to make a new one"
            )
        try:
            if not self._path.exists():
                _make_key_file(self._path)
            make_private(self._path)
            key = serialization.load_pem_private_key(self._path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as err:
            raise ConfigurationError(
                f"cannot read or create the signing key {self._path}: {err}; restore the file, or delete it to create "
                "a new key (which invalidates all existing tokens)"
            ) from err
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ConfigurationError(f"the signing key {self._path} is not an ES256 (P-256) key")
        self._key_id = _thumbprint(_public_jwk(key))
        self._key = key
        return key


def _make_key_file(path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    make_private_folder(path.parent)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # atomic, and only the first of several processes succeeds
        except FileExistsError:
            return
    finally:
        partial.unlink()


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()

    def field(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode("ascii")

    return {"crv": "P-256", "kty": "EC", "x": field(numbers.x), "y": field(numbers.y)}


def _thumbprint(jwk: dict[str, str]) -> str:
    """Return the thumbprint of a key, as RFC 7638 defines it."""
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode("ascii")
