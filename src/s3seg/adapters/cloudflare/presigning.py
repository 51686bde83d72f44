"""Presigned PUT requests of S3, made with the standard library alone: a Worker has no boto3.

The algorithm is AWS Signature Version 4 with query parameters, as described in the S3 documentation under
"Authenticating Requests: Using Query Parameters".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from s3seg.tasks.object_keys import check_key, headers_of_put
from s3seg.tasks.records import PresignedPut

_ALGORITHM = "AWS4-HMAC-SHA256"
_REGION = "auto"  # the only one of R2; other S3 servers accept any


class PutSigner:
    """Signs requests that store one object each, for clients that send pictures straight to the bucket.

    Args:
        endpoint_url: Such as ``https://<account>.r2.cloudflarestorage.com``.
        bucket: The name of the bucket.
        access_key_id: Access key id of an API token that may write objects of this bucket.
        secret_access_key: Secret access key of the same token.
    """

    def __init__(self, *, endpoint_url: str, bucket: str, access_key_id: str, secret_access_key: SecretStr) -> None:
        self._address = urlsplit(endpoint_url.rstrip("/"))
        self._bucket = bucket
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key

    def sign(self, key: str, *, size_bytes: int, expires_s: int, now: datetime | None = None) -> PresignedPut:
        """Return a PUT request; length, type and the condition that the key is free are part of the signature.

        Args:
            key: Key of the object.
            size_bytes: Size that the object must have.
            expires_s: Seconds in which the request can be sent; S3 takes at most a week.
            now: Time of the signature; the current time if not given.

        Raises:
            InvalidRequestError: If ``key`` is not a valid key.
        """
        headers = headers_of_put(check_key(key))
        host, path = self._address.netloc, quote(f"{self._address.path}/{self._bucket}/{key}")
        signed = {name.lower(): value for name, value in headers.items()}
        signed |= {"host": host, "content-length": str(size_bytes)}
        time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        scope = (time[:8], _REGION, "s3", "aws4_request")
        query = _query(
            {
                "X-Amz-Algorithm": _ALGORITHM,
                "X-Amz-Credential": "/".join((self._access_key_id, *scope)),
                "X-Amz-Date": time,
                "X-Amz-Expires": str(expires_s),
                "X-Amz-SignedHeaders": ";".join(sorted(signed)),
            }
        )
        lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        request = "\n".join(("PUT", path, query, lines, ";".join(sorted(signed)), "UNSIGNED-PAYLOAD"))
        to_sign = "\n".join((_ALGORITHM, time, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()))
        key_of_day = f"AWS4{self._secret_access_key.get_secret_value()}".encode()
        for part in scope:
            key_of_day = hmac.digest(key_of_day, part.encode(), "sha256")
        signature = hmac.digest(key_of_day, to_sign.encode(), "sha256").hex()
        url = f"{self._address.scheme}://{host}{path}?{query}&X-Amz-Signature={signature}"
        return PresignedPut(url=url, headers=headers)


def _query(fields: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(fields[name], safe='')}" for name in sorted(fields))
