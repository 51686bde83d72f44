"""Signatures of tokens checked with WebCrypto, where there is no package ``cryptography``."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from js import crypto  # pyright: ignore[reportMissingImports]
from pyodide.ffi import JsException, to_js  # pyright: ignore[reportMissingImports]

from s3seg.adapters.cloudflare.convert import js_bytes, js_object
from s3seg.tasks.records import VerificationKey

_PUBLIC_FIELDS = ("kty", "crv", "x", "y", "n", "e")
_IMPORT = {
    "ES256": {"name": "ECDSA", "namedCurve": "P-256"},
    "RS256": {"name": "RSASSA-PKCS1-v1_5", "hash": "SHA-256"},
    "EdDSA": {"name": "Ed25519"},
}
_VERIFY = {**_IMPORT, "ES256": {"name": "ECDSA", "hash": "SHA-256"}}


async def load_with_webcrypto(jwk: Mapping[str, Any], algorithm: str) -> Any:
    """Convert a JWK to a ``CryptoKey``: a `LoadKey` of `s3seg.adapters.supabase.auth`.

    Raises:
        ValueError: It is not a key of this algorithm.
    """
    fields = {name: jwk[name] for name in _PUBLIC_FIELDS if name in jwk}
    if not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("not a key of this algorithm")
    asked = js_object(_IMPORT[algorithm])
    try:
        return await crypto.subtle.importKey("jwk", js_object(fields), asked, False, to_js(["verify"]))
    except JsException:
        raise ValueError("not a key of this algorithm") from None


async def verify_with_webcrypto(key: VerificationKey, signed: bytes, signature: bytes) -> bool:
    """Check a signature: a `VerifySignature` of `s3seg.adapters.jwt`. Shared secrets (HS256) need no WebCrypto."""
    if key.algorithm == "HS256":
        return hmac.compare_digest(hmac.digest(key.key.encode(), signed, hashlib.sha256), signature)
    try:
        asked = js_object(_VERIFY[key.algorithm])
        return bool(await crypto.subtle.verify(asked, key.key, js_bytes(signature), js_bytes(signed)))
    except JsException:  # a signature of a wrong length, on some runtimes
        return False
