import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.errors import InvalidRequestError, RateLimitedError
from s3seg.tasks.limits import UNLIMITED, Action
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import (
    check_key,
    content_type_of,
    key_of_url,
    new_image_key,
    new_result_key,
    public_url,
)
from s3seg.tasks.rate_limit import decide, take
from s3seg.tasks.records import Cursor, Identity, from_microseconds, microseconds

TIMES = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))


@given(TIMES)
def test_microseconds_are_exact(moment):
    assert from_microseconds(microseconds(moment)) == moment


@given(TIMES, st.uuids())
def test_a_cursor_survives_encoding(moment, item):
    cursor = Cursor(created_at=moment, item_id=str(item))
    assert Cursor.decode(cursor.encode()) == cursor
    assert cursor.encode().isascii()


@given(st.text(max_size=60))
def test_other_text_is_not_a_cursor(text):
    try:
        cursor = Cursor.decode(text)
    except InvalidRequestError:
        return
    assert Cursor.decode(cursor.encode()) == cursor


def test_keys_are_unique_and_under_the_prefix_of_the_user():
    user, task = str(uuid.uuid4()), str(uuid.uuid4())
    keys = {new_image_key(user, "image/webp") for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith(f"users/{user}/images/") and key.endswith(".webp") for key in keys)
    assert new_result_key(user, task, "application/json").startswith(f"users/{user}/results/{task}/")
    with pytest.raises(InvalidRequestError):
        new_image_key(user, "image/svg+xml")
    with pytest.raises(InvalidRequestError):
        new_image_key("../x", "image/png")


@given(st.text(alphabet="ab./\\-_%\0\n", max_size=12), st.sampled_from([".png", ".json", "", ".PNG", ".png/"]))
def test_a_key_never_leaves_its_folder(stem, suffix):
    key = stem + suffix
    try:
        check_key(key)
    except InvalidRequestError:
        assert key_of_url("https://x/f", f"https://x/f/{key}") is None
        return
    assert not key.startswith("/")
    assert not any(part in ("", ".", "..") for part in key.split("/"))
    assert content_type_of(key) in ("image/png", "application/json")
    assert key_of_url("https://x/f/", public_url("https://x/f", key)) == key


def test_an_identity_does_not_show_its_token():
    assert "secret" not in repr(Identity(user_id="u", token="secret"))


@pytest.mark.parametrize("prompts", [(), ("a",) * 17])
def test_a_request_has_one_to_sixteen_prompts(prompts):
    with pytest.raises(InvalidRequestError, match="1 to 16"):
        TaskRequest(image_url="x", prompts=prompts)


@pytest.mark.parametrize("key", ["", "k" * 201, "é", "a\nb"])
def test_an_idempotency_key_is_short_and_printable(key):
    with pytest.raises(InvalidRequestError, match="Idempotency-Key"):
        TaskRequest(image_url="x", prompts=("a",), idempotency_key=key)


REQUESTS = st.builds(
    TaskRequest,
    image_url=st.sampled_from(["u", "v"]),
    prompts=st.lists(st.sampled_from(["a", "b", "a, b", '"'])).filter(bool).map(lambda p: tuple(p[:16])),
    project_id=st.sampled_from([None, "a", "b"]),
)


@given(REQUESTS, REQUESTS)
def test_fingerprints_are_equal_exactly_for_equal_requests(one, two):
    assert (one.fingerprint == two.fingerprint) == (one == two)


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 6))
def test_never_more_than_the_limit_is_allowed_in_any_minute(steps, limit):
    now, counted = 0.0, []
    for step in steps:
        now += step
        inside = [moment for moment in reversed(counted) if moment > now - 60][:limit]
        decision = decide(
            Action.UPLOAD,
            count=len(inside),
            oldest=inside[-1] if inside else None,
            limit=limit,
            now=now,
        )
        assert decision.allowed == (len(inside) < limit)
        assert 0 <= decision.retry_after <= 60
        if decision.allowed:
            counted.append(now)
            assert decision.remaining == limit - len(inside) - 1
    for start in counted:
        assert sum(start <= moment < start + 60 for moment in counted) <= limit


def test_times_are_aware():
    assert from_microseconds(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert microseconds(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1)) == 1_000_000


def test_a_refusal_never_tells_to_retry_too_early():
    decision = decide(Action.SEGMENT, count=5, oldest=0.0, limit=5, now=59.7)
    with pytest.raises(RateLimitedError, match="retry in 1 seconds"):
        decision.require()


def test_without_a_limit_nothing_is_remembered() -> None:
    """Or each request would take longer than the one before."""
    decision, times = take(Action.TASKS, (), limit=UNLIMITED, now=1.0)
    assert (decision.allowed, decision.remaining > 10**8, times) == (True, True, ())
