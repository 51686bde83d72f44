"""The use cases without HTTP."""

import asyncio
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from s3seg.adapters.memory import MemoryTaskStore
from s3seg.api.edge import SegmentRequest
from s3seg.edge import EdgeOptions, Upload
from s3seg.edge.caching_authenticator import CachingAuthenticator, identity_cache
from s3seg.errors import (
    AuthInvalidError,
    AuthRequiredError,
    ConfigurationError,
    ImageDecodeError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from s3seg.tasks.limits import RATE_LIMITS, Action, Tier
from s3seg.tasks.model import Task, TaskStatus
from s3seg.tasks.object_keys import new_image_key
from s3seg.tasks.records import Identity
from tests.edge.system import FakeAuthenticator, RecordingNotifier, System
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio

USER, HEX = "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f", "0123456789abcdef" * 2
OTHER_KEYS = (
    "backups/users.json",
    f"checks/{HEX}.json",
    f"{HEX}.png",
    f"users/{USER}/{HEX}.png",
    f"users/{USER}/avatars/{HEX}.png",
    f"users/{USER}/images/portrait.png",
    f"users/{USER}/images/{HEX}.json",
    f"users/{USER}/images/{HEX.upper()}.png",
    f"users/{USER}/images/{HEX}0.png",
    f"users/{USER}/images/more/{HEX}.png",
    f"users/{USER.upper()}/images/{HEX}.png",
    f"users/ann/images/{HEX}.png",
    f"users/{USER}/results/{HEX}.png",
    f"users/{USER}/results/first/{HEX}.png",
    f"users/{USER}/results/{USER}/{HEX}.jpg",
    f"users/{USER}/results/{USER}/{USER}/{HEX}.png",
    f"x/users/{USER}/images/{HEX}.png",
)


@pytest.fixture
def system():
    return System()


class TestAuthenticate:
    @pytest.mark.parametrize("header", [None, "", "  ", "Bearer", "bearer   "])
    async def test_without_a_token_it_is_auth_required(self, system, header):
        with pytest.raises(AuthRequiredError):
            await system.edge.authenticate(header)

    @pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "token-0", "Bearer wrong", "Bearer a b"])
    async def test_with_another_scheme_or_a_bad_token_it_is_auth_invalid(self, system, header):
        await system.user()
        with pytest.raises(AuthInvalidError):
            await system.edge.authenticate(header)

    async def test_the_scheme_has_any_case(self, system):
        user = await system.user()
        assert (await system.edge.authenticate(f"bEaReR {user.token}")).user_id == user.user_id

    async def test_a_verified_token_is_not_verified_again(self, system):
        user = await system.user()
        for _ in range(3):
            assert (await system.edge.authenticate(f"Bearer {user.token}")).token == user.token
        assert system.tokens.calls == 1


class TestCachingAuthenticator:
    @pytest.fixture
    def tokens(self):
        tokens = FakeAuthenticator()
        now = datetime.fromtimestamp(1000, UTC)
        for name, ends in [("short", 10), ("long", 3600)]:
            tokens.users[name] = Identity(user_id=name, expires_at=now + timedelta(seconds=ends), token=name)
        return tokens

    @pytest.mark.parametrize(("token", "seconds"), [("short", 10), ("long", 60)])
    async def test_an_entry_expires_with_its_token_and_after_a_minute(self, tokens, token, seconds):
        time = [1000.0]
        verified = CachingAuthenticator(tokens, identity_cache(ttl_s=60, clock=lambda: time[0]))
        await verified.authenticate(token)
        time[0] += seconds - 0.1
        await verified.authenticate(token)
        assert tokens.calls == 1
        time[0] += 0.2
        await verified.authenticate(token)
        assert tokens.calls == 2

    async def test_refusals_are_not_cached(self, tokens):
        verified = CachingAuthenticator(tokens, identity_cache())
        for _ in range(2):
            with pytest.raises(AuthInvalidError):
                await verified.authenticate("wrong")
        assert tokens.calls == 2

    async def test_the_number_of_cached_tokens_is_bounded(self, tokens):
        verified = CachingAuthenticator(tokens, identity_cache(capacity=2, clock=lambda: 1000.0))
        for number in range(5):
            tokens.users[str(number)] = Identity(user_id="u")
            await verified.authenticate(str(number))
        assert len(verified._identities) == 2
        await verified.authenticate("4")
        assert tokens.calls == 5


class TestUpload:
    async def test_an_upload_is_stored_under_an_unguessable_key_of_its_owner(self, system):
        user = await system.user()
        image = await system.edge.upload(user, Upload(data=encoded()))
        assert re.fullmatch(rf"users/{user.user_id}/images/[0-9a-f]{{32}}\.png", image.object_key)
        assert image.image_url == system.objects.url(image.object_key)
        assert await system.objects.get(image.object_key) == encoded()

    async def test_the_same_bytes_twice_are_two_images(self, system):
        user = await system.user()
        first, second = [await system.edge.upload(user, Upload(data=encoded())) for _ in range(2)]
        assert first.image_id != second.image_id
        assert first.object_key != second.object_key

    async def test_a_foreign_project_is_refused_and_leaves_no_object(self, system):
        user, other = await system.user(), await system.user()
        project = await system.store.create_project(other, "theirs")
        with pytest.raises(InvalidRequestError):
            await system.edge.upload(user, Upload(data=encoded(), project_id=project.project_id))
        assert [info async for info in system.objects.list("")] == []

    async def test_over_capacity_is_unavailable_and_passes(self):
        system = System(options=EdgeOptions(max_uploads=1, upload_wait_s=0.01))
        user = await system.user()
        go_on = asyncio.Event()

        async def slow():
            await go_on.wait()
            return Upload(data=encoded())

        first = asyncio.create_task(system.edge.upload(user, slow))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as refused:
            await system.edge.upload(user, Upload(data=encoded()))
        assert refused.value.retry_after > 0
        go_on.set()
        await first
        await system.edge.upload(user, Upload(data=encoded()))

    async def test_one_user_cannot_use_all_upload_slots(self):
        system = System(options=EdgeOptions(max_uploads=3, max_uploads_per_user=2, upload_wait_s=0.01))
        greedy, other = await system.user(), await system.user()
        go_on = asyncio.Event()

        async def slow():
            await go_on.wait()
            return Upload(data=encoded())

        held = [asyncio.create_task(system.edge.upload(greedy, slow)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="too many uploads"):
            await system.edge.upload(greedy, Upload(data=encoded()))
        await system.edge.upload(other, Upload(data=encoded()))
        go_on.set()
        await asyncio.gather(*held)
        await system.edge.upload(greedy, Upload(data=encoded()))

    async def test_four_users_who_send_slowly_leave_room_for_others(self):
        system = System(options=EdgeOptions(upload_wait_s=0.01))

        async def endless():
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        slow = [await system.user() for _ in range(4)]
        held = [asyncio.create_task(system.edge.upload(user, endless)) for user in slow for _ in range(20)]
        while sum(not one.done() for one in held) > 26:  # the others are answered 503
            await asyncio.sleep(0)
        await system.edge.upload(await system.user(), Upload(data=encoded()))
        assert sum(not one.done() for one in held) == 26, "room was not made by sending others away"
        for one in held:
            one.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    async def test_a_waiting_upload_gets_the_slot_that_becomes_free(self):
        system = System(options=EdgeOptions(max_uploads=1, upload_wait_s=20))
        user = await system.user()
        uploads = [system.edge.upload(user, Upload(data=encoded())) for _ in range(5)]
        assert len({stored.image_id for stored in await asyncio.gather(*uploads)}) == 5

    async def test_an_object_stays_when_nobody_knows_whether_it_was_registered(self):
        class LosesTheAnswer(MemoryTaskStore):
            async def register_image(self, caller, image):
                await super().register_image(caller, image)
                raise UnavailableError("the connection was lost")

        system = System()
        store = LosesTheAnswer(system.tables)
        edge = System(tasks=store, objects=system.objects).edge
        user = await system.user()
        with pytest.raises(UnavailableError):
            await edge.upload(user, Upload(data=encoded()))
        (image,) = system.tables.images.values()
        assert await system.objects.get(image.object_key) == encoded()

    async def test_a_failed_upload_frees_its_slot(self):
        system = System(options=EdgeOptions(max_uploads=1))
        user = await system.user()
        for _ in range(3):
            with pytest.raises(ImageDecodeError):
                await system.edge.upload(user, Upload(data=b"no picture"))


class TestRateLimits:
    async def test_each_action_is_counted_by_the_tier_of_the_account(self, system):
        user = await system.user(tier=Tier.FREE)
        limit = RATE_LIMITS[Tier.FREE][Action.UPLOAD]
        left = [(await system.edge.rate_limits.count(user, Action.UPLOAD)).remaining for _ in range(limit)]
        assert left == list(range(limit))[::-1]
        with pytest.raises(RateLimitedError):
            await system.edge.rate_limits.count(user, Action.UPLOAD)
        await system.edge.rate_limits.count(user, Action.RESULTS)
        await system.edge.rate_limits.count(await system.user(tier=Tier.FREE), Action.UPLOAD)

    async def test_an_upload_that_cannot_be_counted_is_refused_but_reads_go_on(self):
        class Broken:
            async def take(self, caller, action, tier):
                raise UnavailableError("no answer")

        system = System(limiter=Broken())
        user = await system.user()
        with pytest.raises(UnavailableError):
            await system.edge.rate_limits.count(user, Action.UPLOAD)
        assert await system.edge.rate_limits.count(user, Action.RESULTS) is None


class TestSubmit:
    async def test_repeated_refused_submits_are_limited_before_they_reach_the_store(self, monkeypatch):
        system = System()
        user, other = await system.user(tier=Tier.FREE, credits=0), await system.user(tier=Tier.FREE)
        limit = RATE_LIMITS[Tier.FREE][Action.SEGMENT]
        for _ in range(limit + 1):
            with pytest.raises(InsufficientCreditsError):
                await system.submit(user)
        asked = []
        monkeypatch.setattr(system.store, "submit", lambda *order: asked.append(order))
        image_url = (await system.edge.upload(user, Upload(data=encoded()))).image_url
        order = SegmentRequest(image_url=image_url, text_prompt="cat")
        with pytest.raises(RateLimitedError) as refused:
            await system.edge.submit(user, order)
        assert 0 < refused.value.retry_after <= 60
        assert not asked
        monkeypatch.undo()
        await system.submit(other)

    async def test_a_paid_key_is_answered_again_whatever_was_refused_since(self, system):
        user = await system.user(tier=Tier.FREE, credits=1)
        order = SegmentRequest(image_url=await system.image_url(user), text_prompt="cat")
        paid = await system.edge.submit(user, order, idempotency_key="k")
        for _ in range(RATE_LIMITS[Tier.FREE][Action.SEGMENT] + 1):
            with pytest.raises(InsufficientCreditsError):
                await system.edge.submit(user, order)
        with pytest.raises(RateLimitedError):
            await system.edge.submit(user, order)
        repeated = await system.edge.submit(user, order, idempotency_key="k")
        assert (repeated.task.task_id, repeated.created) == (paid.task.task_id, False)
        with pytest.raises(RateLimitedError):
            await system.edge.submit(user, order, idempotency_key="never used")

    async def test_a_task_is_paid_and_the_workers_are_notified(self, system):
        user = await system.user(credits=3)
        task = await system.submit(user, "cat", "dog")
        await asyncio.sleep(0)
        assert task.status == TaskStatus.PENDING
        assert task.text_prompt == "cat, dog"
        assert (await system.store.account(user)).credits == 1
        assert system.notifier.woken == [task.task_id]

    async def test_all_prompts_are_paid_for_or_none(self, system):
        user = await system.user(credits=1)
        with pytest.raises(InsufficientCreditsError):
            await system.submit(user, "cat", "dog")
        assert (await system.store.account(user)).credits == 1

    async def test_a_notifier_that_hangs_or_fails_delays_nobody(self):
        class Hanging(RecordingNotifier):
            async def wake(self, task):
                await asyncio.Event().wait()

        class Breaking(RecordingNotifier):
            async def wake(self, task):
                raise RuntimeError("third party")

        for notifier in (Hanging(), Breaking()):
            system = System(notifier=notifier)
            user = await system.user()
            async with asyncio.timeout(5):
                task = await system.submit(user)
                await asyncio.sleep(0)
                assert (await system.finish(task)).status == TaskStatus.DONE
                await system.edge.aclose()

    async def test_a_repeat_is_one_task_and_one_debit(self, system):
        user = await system.user(credits=5)
        request = SegmentRequest(image_url=await system.image_url(user), text_prompt="cat")
        both = await asyncio.gather(*(system.edge.submit(user, request, idempotency_key="k") for _ in range(2)))
        assert both[0].task.task_id == both[1].task.task_id
        assert [one.created for one in both].count(True) == 1
        assert (await system.store.account(user)).credits == 4
        with pytest.raises(InvalidRequestError, match="another request"):
            await system.edge.submit(
                user, SegmentRequest(image_url=request.image_url, text_prompt="dog"), idempotency_key="k"
            )

    async def test_another_users_image_is_a_bad_request(self, system):
        user, other = await system.user(), await system.user()
        request = SegmentRequest(image_url=await system.image_url(other), text_prompt="cat")
        with pytest.raises(InvalidRequestError):
            await system.edge.submit(user, request)


class TestWatching:
    async def test_waiting_ends_when_the_task_does(self, system):
        user = await system.user()
        task = await system.submit(user)
        waiting = asyncio.create_task(system.edge.wait(user, task, timeout_s=30))
        await asyncio.sleep(0)  # the task is read once, unfinished
        await system.finish(task)
        async with asyncio.timeout(5):
            assert (await waiting).status == TaskStatus.DONE

    async def test_a_wait_that_times_out_returns_the_task_as_it_is(self, system):
        user = await system.user()
        task = await system.submit(user)
        assert (await system.edge.wait(user, task, timeout_s=0.05)).status == TaskStatus.PENDING

    @pytest.mark.parametrize(
        "error",
        [
            UnavailableError("the disk is gone"),
            NotFoundError("deleted meanwhile"),
            AuthInvalidError("the token has expired meanwhile"),
        ],
        ids=lambda error: error.code,
    )
    async def test_a_wait_that_fails_returns_the_accepted_task(self, system, monkeypatch, error):
        user = await system.user()
        task = await system.submit(user)

        async def fail(*_):
            raise error

        monkeypatch.setattr(system.store, "get_task", fail)
        assert await system.edge.wait(user, task, timeout_s=30) == task

    async def test_events_end_with_the_token(self, system):
        """The stores of this package that need no token do not check it."""
        user = await system.user()
        task = await system.submit(user)
        user = replace(user, expires_at=datetime.now(UTC) + timedelta(milliseconds=200))
        states = []

        async def follow():
            async for state in await system.edge.events(user, task.task_id, timeout_s=900):
                states.append(state.status)

        with pytest.raises(AuthInvalidError, match="expired"):
            await asyncio.wait_for(follow(), 20)
        assert states == [TaskStatus.PENDING]

    async def test_a_wait_ends_with_the_token(self, system):
        user = await system.user()
        task = await system.submit(user)
        user = replace(user, expires_at=datetime.now(UTC) + timedelta(milliseconds=200))
        async with asyncio.timeout(20):
            assert (await system.edge.wait(user, task, timeout_s=900)).status == TaskStatus.PENDING

    async def test_events_tell_each_state_once(self, system):
        user = await system.user()
        task = await system.submit(user)
        states = []
        async for state in await system.edge.events(user, task.task_id, timeout_s=30):
            states.append(state.status)
            if state.status == TaskStatus.PENDING:
                claim = await system.queue.claim("worker", task.task_id, lease_s=60)
            elif state.status == TaskStatus.PROCESSING:
                from s3seg.testing.harness import outcome_for

                await system.queue.finish(claim.lease, outcome_for(task))
        assert states == [TaskStatus.PENDING, TaskStatus.PROCESSING, TaskStatus.DONE]

    async def test_too_many_watchers_are_not_kept_waiting(self):
        system = System(options=EdgeOptions(max_watchers=1))
        user = await system.user()
        task = await system.submit(user)
        waiting = asyncio.create_task(system.edge.wait(user, task, timeout_s=30))
        while system.edge.can_wait(user):
            await asyncio.sleep(0)
        assert (await system.edge.wait(user, task, timeout_s=30)).status == TaskStatus.PENDING
        with pytest.raises(UnavailableError):
            await system.edge.events(user, task.task_id, timeout_s=30)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await system.edge.events(user, task.task_id, timeout_s=30)

    async def test_streams_that_are_asked_for_at_the_same_time_are_counted(self):
        system = System(options=EdgeOptions(max_watchers_per_user=2))
        user = await system.user()
        task = await system.submit(user)
        streams = [await system.edge.events(user, task.task_id, timeout_s=30) for _ in range(4)]
        begun = await asyncio.gather(*map(anext, streams), return_exceptions=True)
        assert [type(one) for one in begun] == [Task, Task, UnavailableError, UnavailableError]
        for stream in streams:
            await stream.aclose()
        assert system.edge.can_wait(user)

    async def test_one_user_cannot_take_all_places_of_those_that_wait(self):
        system = System(options=EdgeOptions(max_watchers=12, max_watchers_per_user=5))
        greedy, other = await system.user(), await system.user()
        task, another = await system.submit(greedy), await system.submit(other)
        waiting = [asyncio.create_task(system.edge.wait(greedy, task, timeout_s=30)) for _ in range(20)]
        while system.edge.can_wait(greedy):
            await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await system.edge.events(greedy, task.task_id, timeout_s=30)
        assert system.edge.can_wait(other)
        await system.edge.events(other, another.task_id, timeout_s=30)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class TestDeleting:
    async def test_deleting_an_image_cancels_and_refunds_its_live_tasks(self, system):
        user = await system.user(credits=5)
        task = await system.submit(user)
        image = await system.store.get_image(user, task.image_id)
        await system.edge.delete_image(user, image.image_id)
        ended = await system.store.get_task(user, task.task_id)
        assert (ended.status, ended.error_message) == (TaskStatus.ERROR, "cancelled")
        assert (await system.store.account(user)).credits == 5
        with pytest.raises(NotFoundError):
            await system.objects.get(image.object_key)

    async def test_deleting_a_result_removes_its_objects_and_no_others(self, system):
        user = await system.user()
        task = await system.finish(await system.submit(user))
        await system.edge.delete_result(user, task.task_id)
        left = [info.key async for info in system.objects.list("")]
        assert left == [system.objects.key_of(task.source_image_url)]
        with pytest.raises(NotFoundError):
            await system.store.get_task(user, task.task_id)

    async def test_another_users_records_cannot_be_deleted(self, system):
        user, other = await system.user(), await system.user()
        task = await system.submit(other)
        for attempt in (
            system.edge.delete_result(user, task.task_id),
            system.edge.delete_image(user, task.image_id),
            system.store.cancel(user, task.task_id),
        ):
            with pytest.raises(NotFoundError):
                await attempt
        assert (await system.store.get_task(other, task.task_id)).status == TaskStatus.PENDING

    async def test_an_object_that_cannot_be_removed_does_not_fail_the_deletion(self, system, monkeypatch):
        user = await system.user()
        task = await system.submit(user)

        async def broken(key):
            raise UnavailableError("read-only")

        monkeypatch.setattr(system.objects, "delete", broken)
        await system.edge.delete_image(user, task.image_id)
        with pytest.raises(NotFoundError):
            await system.store.get_image(user, task.image_id)
        assert (await system.store.get_task(user, task.task_id)).ended


class TestObjects:
    @pytest.mark.parametrize("key", ["../etc/passwd", "users/u/images/x.svg", "", "a/../b.png", "x.png\0"])
    async def test_what_cannot_be_a_key_is_not_found(self, system, key):
        with pytest.raises(NotFoundError):
            await system.edge.open_object(key)

    async def test_a_private_store_gives_a_url_to_redirect_to(self, system, monkeypatch):
        async def presign(key, *, expires_s):
            return f"https://bucket.example/{key}?expires={expires_s}"

        monkeypatch.setattr(system.objects, "presign", presign)
        key = new_image_key(str(uuid.uuid4()), "image/png")
        assert await system.edge.open_object(key) == f"https://bucket.example/{key}?expires=60"

    @pytest.mark.parametrize("key", OTHER_KEYS)
    async def test_objects_of_other_programs_in_the_bucket_are_neither_served_nor_presigned(
        self, system, monkeypatch, key
    ):
        await system.objects.put(key, b"a backup of something else")
        with pytest.raises(NotFoundError):
            await system.edge.open_object(key)

        async def presign(key, *, expires_s):
            return f"https://bucket.example/{key}"

        monkeypatch.setattr(system.objects, "presign", presign)
        with pytest.raises(NotFoundError):
            await system.edge.open_object(key)


async def test_a_part_that_hangs_or_fails_is_named(monkeypatch):
    monkeypatch.setattr("s3seg.tasks.health._TIMEOUT_S", 0.05)
    system = System()

    async def hang():
        await asyncio.Event().wait()

    async def fail():
        raise UnavailableError("the disk is full")

    async def misconfigured():
        raise ConfigurationError("cannot read /home/ann/.s3seg/auth/signing-key.pem")

    monkeypatch.setattr(system.objects, "check", fail)
    monkeypatch.setattr(system.store, "check", hang)
    monkeypatch.setattr(system.tokens, "check", misconfigured)
    said = await system.edge.check()
    assert said["objects"] == "the disk is full"
    assert "no response" in said["tasks"]
    assert said["authenticator"] == "configuration error; see the log of the service"
    assert said["rate_limiter"] is None
