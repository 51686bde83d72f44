"""Stores objects in Cloudflare R2, or in any other S3-compatible store that supports ``If-None-Match``."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import Any, TypeVar

from pydantic import SecretStr

from s3seg.errors import (
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    ObjectExistsError,
    S3segError,
    UnavailableError,
)
from s3seg.tasks.object_keys import CACHE_CONTROL, check_key, content_type_of, headers_of_put, key_of_url, public_url
from s3seg.tasks.records import ObjectInfo, ObjectStream, PresignedPut

_T = TypeVar("_T")
_CHUNK = 1 << 20
_READ_ATTEMPTS = 3  # if the body is cut short
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "401", "403", "Unauthorized"})
_WRONG_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})


class R2ObjectStore:
    """An `ObjectStore` in a bucket. boto3 is imported on first use, and runs in a thread pool of its own.

    Args:
        endpoint_url: Such as ``https://<account>.r2.cloudflarestorage.com``.
        bucket: The name of the bucket.
        access_key_id: Access key id of an API token that may read and write objects of this bucket.
        secret_access_key: Secret access key of the same token.
        public_base: Base URL under which the objects are served.
        public: Whether the bucket itself serves this URL; if not, objects are served through presigned URLs.
        timeout_s: Seconds to wait for each response.
        threads: Most concurrent calls.
    """

    takes_presigned_puts = True

    def __init__(
        self,
        *,
        endpoint_url: str,
        bucket: str,
        access_key_id: str,
        secret_access_key: SecretStr,
        public_base: str,
        public: bool = True,
        timeout_s: float = 20.0,
        threads: int = 16,
    ) -> None:
        self._endpoint_url = endpoint_url
        self._bucket = bucket
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._base = public_base
        self._public = public
        self._timeout_s = timeout_s
        self._threads = threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._client: Any = None

    async def put(self, key: str, body: bytes) -> ObjectInfo:
        """Store an object, or raise ObjectExistsError if the key is taken."""
        content_type = content_type_of(key)
        return await self._run(lambda s3: self._put(s3, key, body, content_type))

    async def get(self, key: str) -> bytes:
        """Return the whole object, or raise NotFoundError."""
        _require_key(key)
        return await self._run(lambda s3: _whole(s3, self._bucket, key))

    async def stream(self, key: str) -> ObjectStream:
        """Return the object as a stream of chunks, or raise NotFoundError. Each chunk is a request of its own."""
        _require_key(key)
        info, etag, first = await self._run(lambda s3: _first_chunk(s3, self._bucket, key))
        return ObjectStream(info=info, chunks=self._chunks(info, etag, first))

    async def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        try:
            check_key(key)
        except InvalidRequestError:
            return
        try:
            await self._run(lambda s3: s3.delete_object(Bucket=self._bucket, Key=key))
        except NotFoundError:
            return

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Iterate over all objects whose key starts with ``prefix``."""
        token: dict[str, str] = {}
        while True:
            asked = {"Bucket": self._bucket, "Prefix": prefix, **token}
            page = await self._run(lambda s3, asked=asked: s3.list_objects_v2(**asked))
            for entry in page.get("Contents", ()):
                try:
                    key = check_key(entry["Key"])
                except InvalidRequestError:
                    continue  # not an object of ours
                if key.startswith(prefix):
                    yield ObjectInfo(
                        key=key,
                        size_bytes=entry["Size"],
                        content_type=content_type_of(key),
                        modified_at=entry["LastModified"],
                    )
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def discard_partial_writes(self, before: datetime) -> int:
        """Return 0: a put is a single request, which leaves nothing behind if it fails."""
        return 0

    def url(self, key: str) -> str:
        """Return the public URL of an object."""
        return public_url(self._base, key)

    def key_of(self, url: str) -> str | None:
        """Return the key of an object from its public URL, or None for any other URL."""
        return key_of_url(self._base, url)

    async def presign(self, key: str, *, expires_s: int) -> str | None:
        """Return a presigned URL if the bucket is private, or None if it is public."""
        if self._public:
            return None
        asked = {"Bucket": self._bucket, "Key": check_key(key)}
        return await self._run(lambda s3: s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=expires_s))

    async def presign_put(self, key: str, *, size_bytes: int, expires_s: int) -> PresignedPut:
        """Return a presigned PUT; length, type and the condition that the key is free are part of the signature."""
        headers = headers_of_put(check_key(key))
        asked = {
            "Bucket": self._bucket,
            "Key": key,
            "ContentLength": size_bytes,
            "ContentType": headers["Content-Type"],
            "CacheControl": headers["Cache-Control"],
            "IfNoneMatch": headers["If-None-Match"],
        }
        url = await self._run(lambda s3: s3.generate_presigned_url("put_object", Params=asked, ExpiresIn=expires_s))
        return PresignedPut(url=url, headers=headers)

    async def check(self) -> None:
        """Check that the bucket can be reached, with one cheap request; `probe` checks more."""
        try:
            await self._run(lambda s3: s3.head_bucket(Bucket=self._bucket))
        except NotFoundError:
            raise _no_bucket(self._bucket) from None
        except (ConfigurationError, UnavailableError):
            # an error response to a HEAD has no body; a list request tells the reason
            await self._run(lambda s3: s3.list_objects_v2(Bucket=self._bucket, MaxKeys=1))
            raise

    async def probe(self) -> None:
        """Write, overwrite, read and delete a test object, to check that the store supports what we need.

        Raises:
            UnavailableError: If the store does not respond.
            ConfigurationError: If a setting is wrong, or the store lets a second write replace an object.
        """
        await self.check()  # before writing, since some servers create a missing bucket on a write
        key = f"checks/{secrets.token_hex(16)}.json"
        await self.put(key, b"{}")
        try:
            await self.put(key, b"[]")
        except ObjectExistsError:
            if await self.get(key) != b"{}":
                raise UnavailableError("the object store returned bytes that differ from those written") from None
        else:
            raise ConfigurationError(
                "the object store ignores If-None-Match, so a second write replaced an object; use R2, or a newer "
                "version of the server"
            )
        finally:
            await self.delete(key)

    async def aclose(self) -> None:
        """Close the connections and the threads."""
        with self._lock:
            pool, client = self._pool, self._client
            self._pool = self._client = None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        if client is not None:
            client.close()

    async def _run(self, work: Callable[[Any], _T]) -> _T:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="s3seg-r2")
            pool = self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, self._work, work)

    def _work(self, work: Callable[[Any], _T]) -> _T:
        client = self._connected()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return work(client)
        except ClientError as err:
            raise self._translated(err) from None  # the original message may name bucket, key and account
        except BotoCoreError as err:
            raise UnavailableError(f"the object store does not respond ({type(err).__name__})") from None

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        try:
            import boto3.session
            from botocore.config import Config
        except ImportError:
            raise ConfigurationError(
                "object_store='r2' needs boto3; install it with: pip install 's3seg[cloud]'"
            ) from None
        config = Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            # R2 does not support the checksums that boto3 adds by default (boto/boto3#4400)
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=min(5.0, self._timeout_s),
            read_timeout=self._timeout_s,
            max_pool_connections=self._threads,
        )
        try:
            return boto3.session.Session().client(
                "s3",
                endpoint_url=self._endpoint_url,
                aws_access_key_id=self._access_key_id,
                aws_secret_access_key=self._secret_access_key.get_secret_value(),
                region_name="auto",
                config=config,
            )
        except ValueError:
            raise ConfigurationError(
                f"S3SEG_R2_ENDPOINT_URL={self._endpoint_url!r} is not a URL; for R2 use "
                "https://<account id>.r2.cloudflarestorage.com"
            ) from None

    def _put(self, s3: Any, key: str, body: bytes, content_type: str) -> ObjectInfo:
        from botocore.exceptions import ClientError

        digest = hashlib.md5(body, usedforsecurity=False)
        try:
            answer = s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                ContentMD5=base64.b64encode(digest.digest()).decode("ascii"),
                CacheControl=CACHE_CONTROL,
                IfNoneMatch="*",
            )
        except ClientError as err:
            retried = err.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
            if not (_code(err) in _TAKEN and retried):
                raise
            # an earlier attempt may have written our object, and its response was lost
            answer = s3.head_object(Bucket=self._bucket, Key=key)
            if answer["ETag"].strip('"') != digest.hexdigest():
                raise
        return ObjectInfo(key=key, size_bytes=len(body), content_type=content_type, modified_at=_date_of(answer))

    async def _chunks(self, info: ObjectInfo, etag: str, first: bytes) -> AsyncIterator[bytes]:
        yield first
        for start in range(len(first), info.size_bytes, _CHUNK):
            asked = {"Bucket": self._bucket, "Key": info.key, "IfMatch": etag}
            asked["Range"] = f"bytes={start}-{start + _CHUNK - 1}"
            yield (await self._run(lambda s3, asked=asked: _read(s3, asked)))[1]

    def _translated(self, err: Any) -> S3segError:
        code = _code(err)
        if code in _ABSENT:
            return NotFoundError("no such object")
        if code in _TAKEN:
            return ObjectExistsError("an object with this key already exists")
        if code == "NoSuchBucket":
            return _no_bucket(self._bucket)
        if code in _WRONG_CLOCK:
            return ConfigurationError(
                "the object store rejects requests because the clock of this machine is wrong; turn on time "
                "synchronisation (NTP)"
            )
        if code in _WRONG_KEY or (code == "InvalidArgument" and "access key" in _message(err)):
            return ConfigurationError(
                "the object store rejects the access key; check S3SEG_R2_ACCESS_KEY_ID and "
                "S3SEG_R2_SECRET_ACCESS_KEY, and that the token may read and write objects of the bucket "
                f"{self._bucket!r}"
            )
        return UnavailableError(f"the object store cannot serve the request now ({code[:40]})")


def _require_key(key: str) -> None:
    try:
        check_key(key)
    except InvalidRequestError:
        raise NotFoundError("no such object") from None


def _whole(s3: Any, bucket: str, key: str) -> bytes:
    return _read(s3, {"Bucket": bucket, "Key": key})[1]


def _first_chunk(s3: Any, bucket: str, key: str) -> tuple[ObjectInfo, str, bytes]:
    from botocore.exceptions import ClientError

    try:
        answer, body = _read(s3, {"Bucket": bucket, "Key": key, "Range": f"bytes=0-{_CHUNK - 1}"})
        total = answer.get("ContentRange", f"/{len(body)}").rpartition("/")[2]
    except ClientError as err:
        if _code(err) not in ("InvalidRange", "416"):
            raise
        # an empty object has no valid range
        answer, body, total = s3.head_object(Bucket=bucket, Key=key), b"", "0"
    info = ObjectInfo(
        key=key, size_bytes=int(total), content_type=content_type_of(key), modified_at=answer["LastModified"]
    )
    return info, answer["ETag"], body


def _read(s3: Any, asked: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """Read an object or a range of it completely; boto3 retries requests, but not bodies that are cut short."""
    from botocore.exceptions import (
        HTTPClientError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    for left in range(_READ_ATTEMPTS - 1, -1, -1):
        answer = s3.get_object(**asked)
        try:
            with closing(answer["Body"]) as body:  # its own context manager yields an object that raises other errors
                return answer, body.read()
        except (IncompleteReadError, ResponseStreamingError, ReadTimeoutError, HTTPClientError):
            if not left:
                raise
    raise AssertionError("unreachable")


def _code(err: Any) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))


def _message(err: Any) -> str:
    return str(err.response.get("Error", {}).get("Message", ""))


def _date_of(answer: dict[str, Any]) -> datetime:
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _no_bucket(bucket: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no bucket {bucket!r} at S3SEG_R2_ENDPOINT_URL; check S3SEG_R2_BUCKET, or create the bucket"
    )
