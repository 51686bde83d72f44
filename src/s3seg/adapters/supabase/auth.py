"""The keys that verify tokens of Supabase Auth: its JWKS, and the legacy shared secret if one is configured."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import jwt
from pydantic import SecretStr

from s3seg.errors import ConfigurationError, UnavailableError
from s3seg.tasks.records import VerificationKey

FRESH_S = 600.0
"""Seconds for which a fetched key set is used without fetching it again."""

STALE_S = 86_400.0
"""Seconds for which it is still used if it cannot be fetched again."""

REFRESH_EVERY_S = 15.0
"""Least seconds between two fetches, whichever key ids the tokens name."""

MAX_BYTES = 65_536
"""Largest accepted key set, in bytes."""

MAX_KEYS = 16
"""Most keys read from a key set; further ones are ignored."""

_MIN_SECRET_BYTES = 32  # RFC 7518, 3.2
_MIN_RSA_BITS = 2048
_ALGORITHMS = {("EC", "P-256"): "ES256", ("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA"}


LoadKey = Callable[[Mapping[str, Any], str], Awaitable[Any]]
"""Converts a public JWK for an algorithm to what checks signatures; raises ValueError or TypeError if it is damaged."""


@dataclass(slots=True)
class KnownKeys:
    """The key set as last fetched: plain data, which several `SupabaseKeys` may share.

    Attributes:
        by_id: The keys by their ids.
        fetched_at: When they were fetched; None if they never were.
        tried_at: When fetching them was last tried.
    """

    by_id: dict[str, VerificationKey] = field(default_factory=dict)
    fetched_at: float | None = None
    tried_at: float | None = None


async def load_with_pyjwt(jwk: Mapping[str, Any], algorithm: str) -> Any:
    """Convert a JWK with PyJWT, which takes the package ``cryptography``."""
    try:
        return jwt.PyJWK(dict(jwk), algorithm=algorithm).key
    except jwt.PyJWTError as err:
        raise ValueError("not a key of this algorithm") from err


class SupabaseKeys:
    """A `KeySource` for tokens of Supabase Auth.

    Asymmetric keys come only from the project's JWKS, and a shared secret only from the settings, never from the
    network.

    Args:
        jwks_url: URL of the key set, ``{project}/auth/v1/.well-known/jwks.json``.
        secret: The legacy HS256 secret, for projects that still use it.
        timeout_s: Seconds to wait for the key set.
        clock: Returns the time in seconds, from a clock that never goes backwards.
        wall_clock: Returns the seconds since 1970, for `probe`.
        transport: An httpx transport to use instead of the network.
        load_key: Converts the keys of the set.
        known: Where the keys are kept. Objects that share it do not wait for each other.

    Raises:
        ConfigurationError: If the secret is too short.
    """

    def __init__(
        self,
        jwks_url: str,
        *,
        secret: SecretStr | None = None,
        timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        transport: httpx.AsyncBaseTransport | None = None,
        load_key: LoadKey = load_with_pyjwt,
        known: KnownKeys | None = None,
    ) -> None:
        if secret is not None and len(secret.get_secret_value().encode()) < _MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"S3SEG_SUPABASE_JWT_SECRET has fewer than {_MIN_SECRET_BYTES} bytes; copy the complete legacy JWT "
                "secret, or unset it if the project signs with asymmetric keys"
            )
        self._url = jwks_url
        self._secret = secret
        self._timeout_s = timeout_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._ahead_s = 0.0
        self._transport = transport
        self._load_key = load_key
        self._known = known or KnownKeys()
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key with this id for this algorithm, or None.

        Raises:
            UnavailableError: If the key set cannot be fetched, and the last one is too old.
        """
        if algorithm == "HS256":
            if self._secret is None:
                return None
            return VerificationKey(key_id=None, algorithm="HS256", key=self._secret.get_secret_value())
        if key_id is None:
            return None
        if self._age() >= FRESH_S or key_id not in self._known.by_id:
            await self._refresh(key_id)
        key = self._known.by_id.get(key_id)
        return key if key is not None and key.algorithm == algorithm else None

    async def check(self) -> None:
        """Check that the key set can be fetched and contains a usable key."""
        async with self._fetching:
            keys = await self._fetch()
            self._keep(keys)
        if not keys and self._secret is None:
            raise ConfigurationError(
                f"{self._url} contains no key: turn on asymmetric signing keys in the project's JWT settings, or set "
                "S3SEG_SUPABASE_JWT_SECRET to the legacy secret"
            )

    async def probe(self, *, leeway_s: float) -> None:
        """Check the key set, and compare the clock of this machine with that of Supabase Auth.

        Raises:
            ConfigurationError: The clocks differ by more than ``leeway_s`` seconds.
        """
        await self.check()
        if abs(self._ahead_s) > leeway_s:
            where = "ahead of" if self._ahead_s > 0 else "behind"
            raise ConfigurationError(
                f"the clock of this machine is {abs(self._ahead_s):.0f} seconds {where} that of Supabase Auth, so "
                "valid tokens will be refused: turn on time synchronisation (NTP)"
            )

    async def aclose(self) -> None:
        """Do nothing: no connection is kept open."""

    def _age(self) -> float:
        fetched_at = self._known.fetched_at
        return float("inf") if fetched_at is None else self._clock() - fetched_at

    async def _refresh(self, key_id: str) -> None:
        """Fetch the key set, unless it was fetched a moment ago; keep the last one if fetching fails."""
        async with self._fetching:  # concurrent callers share one fetch
            if self._age() < FRESH_S and key_id in self._known.by_id:
                return
            tried_at = self._known.tried_at
            if tried_at is None or self._clock() - tried_at >= REFRESH_EVERY_S:
                if self._known.by_id:  # before there are keys, those who share them may all fetch them at once
                    self._known.tried_at = self._clock()
                try:
                    self._keep(await self._fetch())
                except (UnavailableError, ConfigurationError):
                    self._known.tried_at = self._clock()
                    if self._age() >= STALE_S:
                        raise
            elif self._age() >= STALE_S:
                raise UnavailableError("cannot fetch the signing keys of Supabase Auth", retry_after=REFRESH_EVERY_S)

    def _keep(self, keys: dict[str, VerificationKey]) -> None:
        self._known.by_id = keys
        self._known.fetched_at = self._known.tried_at = self._clock()

    async def _fetch(self) -> dict[str, VerificationKey]:
        try:
            body = await self._download()
            found = json.loads(body)["keys"]
        except httpx.HTTPError as err:
            raise UnavailableError(f"cannot fetch the signing keys of Supabase Auth ({type(err).__name__})") from err
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigurationError(f"{self._url} is not a JSON Web Key Set; check S3SEG_SUPABASE_URL") from None
        keys: dict[str, VerificationKey] = {}
        for jwk in (found if isinstance(found, list) else [])[:MAX_KEYS]:
            key = await self._read_key(jwk)
            if key is not None and key.key_id is not None:
                keys.setdefault(key.key_id, key)
        return keys

    async def _read_key(self, jwk: Any) -> VerificationKey | None:
        usable = _usable(jwk)
        if usable is None:
            return None
        key_id, algorithm = usable
        try:
            key = await self._load_key(jwk, algorithm)
        except (ValueError, TypeError):
            return None
        return VerificationKey(key_id=key_id, algorithm=algorithm, key=key)

    async def _download(self) -> bytes:
        client = httpx.AsyncClient(
            transport=self._transport, timeout=self._timeout_s, follow_redirects=False, trust_env=False
        )
        async with client, client.stream("GET", self._url, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise UnavailableError(
                    f"Supabase Auth responded with {answer.status_code} to the request for its signing keys"
                )
            body = b""
            async for chunk in answer.aiter_raw():  # not decompressed, so that the size limit holds
                body += chunk
                if len(body) > MAX_BYTES:
                    raise UnavailableError(f"the key set of Supabase Auth has more than {MAX_BYTES} bytes")
            self._ahead_s = _ahead(self._wall_clock(), answer.headers)
            return body


def _ahead(now: float, headers: httpx.Headers) -> float:
    """Return by how many seconds this machine's clock is ahead of a server's; 0 if the response does not tell."""
    try:
        then = parsedate_to_datetime(headers["date"]).timestamp()
        age = float(headers.get("age", 0))
    except (KeyError, ValueError, TypeError):
        return 0.0
    # some caches renew the Date header and some do not, so take the interpretation with the smaller difference
    return min(now - then, now - then - age, key=abs)


def _usable(jwk: Any) -> tuple[str, str] | None:
    """Return id and algorithm of a JWK; None for keys that must not be used, above all symmetric ones."""
    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    key_id, kind = jwk.get("kid"), jwk.get("kty")
    curve = jwk.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None):
        return None
    algorithm = _ALGORITHMS.get((kind, curve))
    if not isinstance(key_id, str) or algorithm is None or jwk.get("alg", algorithm) != algorithm:
        return None
    if algorithm == "RS256" and _bits(jwk.get("n")) < _MIN_RSA_BITS:
        return None
    return key_id, algorithm


def _bits(number: Any) -> int:
    """Return the length of a number of a JWK in bits; 0 if it is not one."""
    try:
        return int.from_bytes(base64.urlsafe_b64decode(number + "==")).bit_length()
    except (TypeError, ValueError):
        return 0
