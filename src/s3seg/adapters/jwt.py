"""Access tokens as Supabase Auth mints them, judged with PyJWT; where keys come from is a `KeySource`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from s3seg.errors import AuthInvalidError, ForbiddenError
from s3seg.tasks.limits import Tier
from s3seg.tasks.ports import KeySource
from s3seg.tasks.records import Identity

ALGORITHMS = ("ES256", "RS256", "EdDSA", "HS256")
"""What may sign a token; ``none`` and everything else is refused before any key is looked for."""

MAX_TOKEN_CHARS = 8192
"""Longer tokens are refused unread."""

_REQUIRED = ("exp", "sub", "iat", "aud", "iss")


class JwtAuthenticator:
    """An `Authenticator` for signed tokens.

    A token's header chooses among our keys, never brings one: ``jwk`` and ``jku`` are ignored, ``crit`` is
    refused, and each key is good for one algorithm only.

    Args:
        keys: Where to look for keys.
        issuers: Accepted ``iss``.
        audience: Required ``aud``.
        leeway_s: Clock difference allowed for ``exp``, ``nbf`` and ``iat``, seconds.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuers: Sequence[str],
        audience: str = "authenticated",
        leeway_s: float = 10,
    ) -> None:
        self._keys = keys
        self._issuers = list(issuers)
        self._audience = audience
        self._leeway_s = leeway_s

    async def authenticate(self, token: str) -> Identity:
        """See `Authenticator.authenticate`."""
        if not token or len(token) > MAX_TOKEN_CHARS:
            raise AuthInvalidError(f"the token must have 1 to {MAX_TOKEN_CHARS} characters")
        key_id, algorithm = _read_header(token)
        key = await self._keys.find(key_id, algorithm)
        if key is None or key.algorithm != algorithm:
            raise AuthInvalidError("the token is signed with a key that is not ours")
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuers,
                leeway=self._leeway_s,
                options={"require": list(_REQUIRED)},
            )
        except jwt.ExpiredSignatureError as err:
            raise AuthInvalidError("the token has expired") from err
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as err:
            raise AuthInvalidError("the token is not valid") from err
        return _identity(claims, token)

    async def check(self) -> None:
        """See `Part.check`."""
        await self._keys.check()

    async def probe(self) -> None:
        """Look closer at where the keys come from, if it can be asked to.

        Raises:
            ConfigurationError: Tokens would be refused, though the keys can be had.
        """
        probing = getattr(self._keys, "probe", None)
        if probing is not None:
            await probing(leeway_s=self._leeway_s)

    async def aclose(self) -> None:
        """See `Part.aclose`."""
        await self._keys.aclose()


def _read_header(token: str) -> tuple[str | None, str]:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError) as err:
        raise AuthInvalidError("the token is not a JWT") from err
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS or "crit" in header:
        raise AuthInvalidError("the token's header asks for something we do not accept")
    if key_id is not None and not isinstance(key_id, str):
        raise AuthInvalidError("the token's key id is not a string")
    return key_id, algorithm


def _identity(claims: dict[str, Any], token: str) -> Identity:
    try:
        user_id = str(uuid.UUID(claims["sub"]))
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError):
        raise AuthInvalidError("the token's subject is not a user id, or its end is no time") from None
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
    # app_metadata is the issuer's word; user_metadata is the user's own, and never read
    app_metadata = claims.get("app_metadata")
    tier = app_metadata.get("tier") if isinstance(app_metadata, dict) else None
    return Tier(tier) if tier in list(Tier) else None
