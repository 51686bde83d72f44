"""Verifies access tokens in the format of Supabase Auth; the keys come from a `KeySource`.

PyJWT parses tokens and judges their claims. The signature itself is checked by a function, since not every runtime has
the package ``cryptography``, which PyJWT needs for that: a Cloudflare Worker has WebCrypto.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.types import Options
from jwt.utils import base64url_decode

from s3seg.errors import AuthInvalidError, ForbiddenError
from s3seg.tasks.limits import Tier
from s3seg.tasks.ports import KeySource
from s3seg.tasks.records import Identity, VerificationKey

ALGORITHMS = ("ES256", "RS256", "EdDSA", "HS256")
"""Accepted signature algorithms; a token with another one (such as ``none``) is refused before looking for a key."""

MAX_TOKEN_CHARS = 8192
"""Most characters in a token; longer ones are refused without parsing them."""

VerifySignature = Callable[[VerificationKey, bytes, bytes], Awaitable[bool]]
"""Returns whether the key has signed the bytes: ``(key, signed bytes, signature)``; raises ValueError or TypeError if
the key cannot be used."""

_CLAIMS_ONLY: Options = {
    "verify_signature": False,  # it has been checked; without the others PyJWT would then check nothing at all
    "verify_exp": True,
    "verify_nbf": True,
    "verify_iat": True,
    "verify_aud": True,
    "verify_iss": True,
    "verify_sub": True,
    "verify_jti": True,
    "require": ["exp", "sub", "iat", "aud", "iss"],
}


async def verify_with_pyjwt(key: VerificationKey, signed: bytes, signature: bytes) -> bool:
    """Check a signature with PyJWT, which takes the package ``cryptography`` for everything but HS256."""
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return algorithm.verify(signed, algorithm.prepare_key(key.key), signature)


class JwtAuthenticator:
    """An `Authenticator` for JSON Web Tokens.

    The header of a token selects one of the trusted keys, and can never supply a key itself: ``jwk`` and ``jku`` are
    ignored, and ``crit`` is refused. Each key is accepted with one algorithm only.

    Args:
        keys: The trusted keys.
        issuers: Accepted values of ``iss``.
        audience: Required value of ``aud``.
        leeway_s: Allowed clock difference for ``exp``, ``nbf`` and ``iat``, in seconds.
        verify_signature: Checks signatures.
        revoked_at: Returns the time, in seconds since 1970, up to which tokens of a user id are revoked, or None.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuers: Sequence[str],
        audience: str = "authenticated",
        leeway_s: float = 10,
        verify_signature: VerifySignature = verify_with_pyjwt,
        revoked_at: Callable[[str], int | None] = lambda user_id: None,
    ) -> None:
        self._keys = keys
        self._issuers = list(issuers)
        self._audience = audience
        self._leeway_s = leeway_s
        self._verify_signature = verify_signature
        self._revoked_at = revoked_at

    async def authenticate(self, token: str) -> Identity:
        """Verify a token and return its user, or raise AuthInvalidError or ForbiddenError."""
        if not token or len(token) > MAX_TOKEN_CHARS:
            raise AuthInvalidError(f"the token must have 1 to {MAX_TOKEN_CHARS} characters")
        key_id, algorithm = _read_header(token)
        key = await self._keys.find(key_id, algorithm)
        if key is None or key.algorithm != algorithm:
            raise AuthInvalidError("the token is signed with a key that is not trusted")
        try:
            signed, _, signature = token.encode("ascii").rpartition(b".")
            if not await self._verify_signature(key, signed, base64url_decode(signature)):
                raise AuthInvalidError("the token is not valid")
            claims = jwt.decode(
                token, audience=self._audience, issuer=self._issuers, leeway=self._leeway_s, options=_CLAIMS_ONLY
            )
        except jwt.ExpiredSignatureError as err:
            raise AuthInvalidError("the token has expired") from err
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as err:
            raise AuthInvalidError("the token is not valid") from err
        identity = _identity(claims, token)
        revoked_at = self._revoked_at(identity.user_id)
        if revoked_at is not None and claims["iat"] <= revoked_at:
            raise AuthInvalidError("the token was revoked; get a new one")
        return identity

    async def check(self) -> None:
        """Check that the key source works."""
        await self._keys.check()

    async def probe(self) -> None:
        """Run the thorough check of the key source, if it has one.

        Raises:
            ConfigurationError: The keys are available, but valid tokens would be refused.
        """
        probing = getattr(self._keys, "probe", None)
        if probing is not None:
            await probing(leeway_s=self._leeway_s)

    async def aclose(self) -> None:
        """Close the key source."""
        await self._keys.aclose()


def _read_header(token: str) -> tuple[str | None, str]:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError) as err:
        raise AuthInvalidError("the token is not a JWT") from err
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS or "crit" in header:
        raise AuthInvalidError("the token's header names an algorithm or an extension that is not accepted")
    if key_id is not None and not isinstance(key_id, str):
        raise AuthInvalidError("the token's key id is not a string")
    return key_id, algorithm


def _identity(claims: dict[str, Any], token: str) -> Identity:
    try:
        user_id = str(uuid.UUID(claims["sub"]))
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        raise AuthInvalidError("the token's sub is not a user id, or its exp is not a valid time") from None
    if claims.get("role") != "authenticated":
        raise ForbiddenError("this kind of token may not use the API; sign in as a user")
    if claims.get("is_anonymous", False) is not False:
        raise ForbiddenError("anonymous users may not use the API; sign in")
    return Identity(
        user_id=user_id,
        tier=_tier(claims),
        anonymous=False,
        expires_at=expires_at,
        token=token,
    )


def _tier(claims: dict[str, Any]) -> Tier | None:
    # only app_metadata is set by the issuer; users can write user_metadata themselves
    app_metadata = claims.get("app_metadata")
    tier = app_metadata.get("tier") if isinstance(app_metadata, dict) else None
    return Tier(tier) if tier in list(Tier) else None
