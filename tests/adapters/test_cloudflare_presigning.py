"""Requests signed without boto3 are those that boto3 signs."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from s3seg.adapters.cloudflare.presigning import PutSigner
from s3seg.adapters.r2 import R2ObjectStore
from s3seg.errors import InvalidRequestError
from s3seg.tasks.object_keys import new_image_key

pytestmark = pytest.mark.anyio
USER = "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f"
NOW = datetime(2026, 3, 9, 7, 5, 4, tzinfo=UTC)
SECRET = "se/cr+et=%20"


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "image/webp"])
@pytest.mark.parametrize(
    "endpoint", ["https://0123abcd.r2.cloudflarestorage.com", "http://127.0.0.1:8333", "https://s3.example/under/here/"]
)
async def test_a_put_is_signed_as_boto3_signs_it(monkeypatch, endpoint, content_type):
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None))
    bucket = {
        "endpoint_url": endpoint,
        "bucket": "some.bucket-1",
        "access_key_id": "key/id",
        "secret_access_key": SecretStr(SECRET),
    }
    key = new_image_key(USER, content_type)
    store = R2ObjectStore(**bucket, public_base="https://objects.example")
    expected = await store.presign_put(key, size_bytes=1234, expires_s=600)
    await store.aclose()
    made = PutSigner(**bucket).sign(key, size_bytes=1234, expires_s=600, now=NOW)
    assert made.headers == expected.headers
    ours, theirs = urlsplit(made.url), urlsplit(expected.url)
    assert ours[:3] == theirs[:3]
    assert sorted(parse_qsl(ours.query)) == sorted(parse_qsl(theirs.query))


def test_secrets_are_shown_nowhere():
    signer = PutSigner(
        endpoint_url="https://s3.example", bucket="b", access_key_id="id", secret_access_key=SecretStr(SECRET)
    )
    made = signer.sign(new_image_key(USER, "image/png"), size_bytes=1, expires_s=1)
    assert SECRET not in repr(signer) + repr(vars(signer)) + made.url
    assert made.url not in repr(made)


def test_an_invalid_key_is_refused():
    signer = PutSigner(
        endpoint_url="https://s3.example", bucket="b", access_key_id="id", secret_access_key=SecretStr(SECRET)
    )
    with pytest.raises(InvalidRequestError):
        signer.sign("../secret.png", size_bytes=1, expires_s=1)
