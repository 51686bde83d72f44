"""The use cases without HTTP."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from s3seg.adapters.memory import MemoryTaskStore
from s3seg.api.edge import ResultsQuery, SegmentRequest
from s3seg.edge import EdgeOptions, Upload
from s3seg.edge.caching_authenticator import CachingAuthenticator
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
from s3seg.tasks.model import TaskStatus
from s3seg.tasks.records import Identity
from tests.edge.house import Bell, House, KnownTokens
from tests.helpers.pictures import encoded

pytestmark = pytest.mark.anyio


@pytest.fixture
def house():
    return House()


class TestAuthenticate:
    @pytest.mark.parametrize("header", [None, "", "  ", "Bearer", "bearer   "])
    async def test_without_a_token_it_is_auth_required(self, house, header):
        with pytest.raises(AuthRequiredError):
            await house.edge.authenticate(header)

    @pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "token-0", "Bearer wrong", "Bearer a b"])
    async def test_with_another_it_is_auth_invalid(self, house, header):
        await house.user()
        with pytest.raises(AuthInvalidError):
            await house.edge.authenticate(header)

    async def test_the_scheme_has_any_case(self, house):
        user = await house.user()
        assert (await house.edge.authenticate(f"bEaReR {user.token}")).user_id == user.user_id

    async def test_a_verified_token_is_not_verified_again(self, house):
        user = await house.user()
        for _ in range(3):
            assert (await house.edge.authenticate(f"Bearer {user.token}")).token == user.token
        assert house.tokens.asked == 1


class TestRecentlyVerified:
    @pytest.fixture
    def tokens(self):
        tokens = KnownTokens()
        now = datetime.fromtimestamp(1000, UTC)
        for name, ends in [("short", 10), ("long", 3600)]:
            tokens.users[name] = Identity(user_id=name, expires_at=now + timedelta(seconds=ends), token=name)
        return tokens

    @pytest.mark.parametrize(("token", "seconds"), [("short", 10), ("long", 60)])
    async def test_a_verdict_ends_with_the_token_and_after_a_minute(self, tokens, token, seconds):
        time = [1000.0]
        verified = CachingAuthenticator(tokens, ttl_s=60, clock=lambda: time[0])
        await verified.authenticate(token)
        time[0] += seconds - 0.1
        await verified.authenticate(token)
        assert tokens.asked == 1
        time[0] += 0.2
        await verified.authenticate(token)
        assert tokens.asked == 2

    async def test_refusals_are_judged_each_time(self, tokens):
        verified = CachingAuthenticator(tokens)
        for _ in range(2):
            with pytest.raises(AuthInvalidError):
                await verified.authenticate("wrong")
        assert tokens.asked == 2

    async def test_a_flood_of_tokens_takes_bounded_memory(self, tokens):
        verified = CachingAuthenticator(tokens, capacity=2, clock=lambda: 1000.0)
        for number in range(5):
            tokens.users[str(number)] = Identity(user_id="u")
            await verified.authenticate(str(number))
        assert len(verified._known) == 2
        await verified.authenticate("4")
        assert tokens.asked == 5


class TestUpload:
    async def test_an_upload_is_stored_under_an_unguessable_key_of_its_owner(self, house):
        user = await house.user()
        image = (await house.edge.upload(user, Upload(data=encoded()))).value
        assert re.fullmatch(rf"users/{user.user_id}/images/[0-9a-f]{{32}}\.png", image.object_key)
        assert image.image_url == house.objects.url(image.object_key)
        assert await house.objects.get(image.object_key) == encoded()

    async def test_the_same_bytes_twice_are_two_images(self, house):
        user = await house.user()
        first, second = [(await house.edge.upload(user, Upload(data=encoded()))).value for _ in range(2)]
        assert first.image_id != second.image_id
        assert first.object_key != second.object_key

    async def test_a_foreign_project_is_refused_and_leaves_no_object(self, house):
        user, other = await house.user(), await house.user()
        project = (await house.edge.create_project(other, "theirs")).value
        with pytest.raises(InvalidRequestError):
            await house.edge.upload(user, Upload(data=encoded(), project_id=project.project_id))
        assert [info async for info in house.objects.list("")] == []

    async def test_over_the_limit_the_body_is_not_read(self, house):
        user = await house.user(tier=Tier.FREE)
        for _ in range(RATE_LIMITS[Tier.FREE][Action.UPLOAD]):
            await house.edge.upload(user, Upload(data=encoded()))

        async def read():
            raise AssertionError("read although refused")

        with pytest.raises(RateLimitedError):
            await house.edge.upload(user, read)

    async def test_over_capacity_is_unavailable_and_passes(self):
        house = House(options=EdgeOptions(uploads_at_once=1, upload_wait_s=0.01))
        user = await house.user()
        go_on = asyncio.Event()

        async def slow():
            await go_on.wait()
            return Upload(data=encoded())

        first = asyncio.create_task(house.edge.upload(user, slow))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError) as refused:
            await house.edge.upload(user, Upload(data=encoded()))
        assert refused.value.retry_after > 0
        go_on.set()
        await first
        await house.edge.upload(user, Upload(data=encoded()))

    async def test_one_user_cannot_hold_all_places(self):
        house = House(options=EdgeOptions(uploads_at_once=3, uploads_of_one_user=2, upload_wait_s=0.01))
        greedy, other = await house.user(), await house.user()
        go_on = asyncio.Event()

        async def slow():
            await go_on.wait()
            return Upload(data=encoded())

        held = [asyncio.create_task(house.edge.upload(greedy, slow)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="too many uploads"):
            await house.edge.upload(greedy, Upload(data=encoded()))
        await house.edge.upload(other, Upload(data=encoded()))
        go_on.set()
        await asyncio.gather(*held)
        await house.edge.upload(greedy, Upload(data=encoded()))

    async def test_who_waits_for_a_place_gets_the_one_that_becomes_free(self):
        house = House(options=EdgeOptions(uploads_at_once=1, upload_wait_s=20))
        user = await house.user()
        uploads = [house.edge.upload(user, Upload(data=encoded())) for _ in range(5)]
        assert len({stored.value.image_id for stored in await asyncio.gather(*uploads)}) == 5

    async def test_an_object_stays_when_nobody_knows_whether_it_was_registered(self):
        class LosesTheAnswer(MemoryTaskStore):
            async def register_image(self, caller, image):
                await super().register_image(caller, image)
                raise UnavailableError("the connection was lost")

        house = House()
        store = LosesTheAnswer(house.tables)
        edge = House(tasks=store, objects=house.objects).edge
        user = await house.user()
        with pytest.raises(UnavailableError):
            await edge.upload(user, Upload(data=encoded()))
        (image,) = house.tables.images.values()
        assert await house.objects.get(image.object_key) == encoded()

    async def test_a_broken_upload_gives_its_place_back(self):
        house = House(options=EdgeOptions(uploads_at_once=1))
        user = await house.user()
        for _ in range(3):
            with pytest.raises(ImageDecodeError):
                await house.edge.upload(user, Upload(data=b"no picture"))

    async def test_an_upload_that_cannot_be_counted_is_refused_but_reads_go_on(self):
        class Broken:
            async def take(self, caller, action, tier):
                raise UnavailableError("no answer")

        house = House(limiter=Broken())
        user = await house.user()
        with pytest.raises(UnavailableError):
            await house.edge.upload(user, Upload(data=encoded()))
        assert (await house.edge.results(user, ResultsQuery())).rate is None


class TestSubmit:
    async def test_refusals_without_end_are_stopped_before_they_reach_the_store(self, monkeypatch):
        house = House()
        user, other = await house.user(tier=Tier.FREE, credits=0), await house.user(tier=Tier.FREE)
        limit = RATE_LIMITS[Tier.FREE][Action.SEGMENT]
        for _ in range(limit + 1):
            with pytest.raises(InsufficientCreditsError):
                await house.submit(user)
        asked = []
        monkeypatch.setattr(house.store, "submit", lambda *order: asked.append(order))
        image_url = (await house.edge.upload(user, Upload(data=encoded()))).value.image_url
        order = SegmentRequest(image_url=image_url, text_prompt="cat")
        with pytest.raises(RateLimitedError) as refused:
            await house.edge.submit(user, order)
        assert 0 < refused.value.retry_after <= 60
        assert not asked
        monkeypatch.undo()
        await house.submit(other)

    async def test_a_task_is_paid_and_the_inference_side_told(self, house):
        user = await house.user(credits=3)
        task = await house.submit(user, "cat", "dog")
        await asyncio.sleep(0)
        assert task.status == TaskStatus.PENDING
        assert task.text_prompt == "cat, dog"
        assert (await house.edge.me(user)).value.credits == 1
        assert house.bell.rung == [task.task_id]

    async def test_all_prompts_are_paid_for_or_none(self, house):
        user = await house.user(credits=1)
        with pytest.raises(InsufficientCreditsError):
            await house.submit(user, "cat", "dog")
        assert (await house.edge.me(user)).value.credits == 1

    async def test_an_inference_side_that_hangs_or_breaks_holds_nobody_up(self):
        class Hanging(Bell):
            async def wake(self, task):
                await asyncio.Event().wait()

        class Breaking(Bell):
            async def wake(self, task):
                raise RuntimeError("third party")

        for bell in (Hanging(), Breaking()):
            house = House(inference=bell)
            user = await house.user()
            async with asyncio.timeout(5):
                task = await house.submit(user)
                await asyncio.sleep(0)
                assert (await house.finish(task)).status == TaskStatus.DONE
                await house.edge.aclose()

    async def test_a_repeat_is_one_task_and_one_debit(self, house):
        user = await house.user(credits=5)
        request = SegmentRequest(image_url=await house.image_url(user), text_prompt="cat")
        both = await asyncio.gather(*(house.edge.submit(user, request, idempotency_key="k") for _ in range(2)))
        assert both[0].task.task_id == both[1].task.task_id
        assert [one.created for one in both].count(True) == 1
        assert (await house.edge.me(user)).value.credits == 4
        with pytest.raises(InvalidRequestError, match="another request"):
            await house.edge.submit(
                user, SegmentRequest(image_url=request.image_url, text_prompt="dog"), idempotency_key="k"
            )

    async def test_another_users_image_is_a_bad_request(self, house):
        user, other = await house.user(), await house.user()
        request = SegmentRequest(image_url=await house.image_url(other), text_prompt="cat")
        with pytest.raises(InvalidRequestError):
            await house.edge.submit(user, request)


class TestWatching:
    async def test_waiting_ends_when_the_task_does(self, house):
        user = await house.user()
        task = await house.submit(user)
        waiting = asyncio.create_task(house.edge.wait(user, task, timeout_s=30))
        await asyncio.sleep(0.05)
        await house.finish(task)
        async with asyncio.timeout(5):
            assert (await waiting).status == TaskStatus.DONE

    async def test_waiting_in_vain_gives_the_task_as_it_is(self, house):
        user = await house.user()
        task = await house.submit(user)
        assert (await house.edge.wait(user, task, timeout_s=0.05)).status == TaskStatus.PENDING

    @pytest.mark.parametrize(
        "error",
        [
            UnavailableError("the disk is gone"),
            NotFoundError("deleted meanwhile"),
            AuthInvalidError("the token has expired meanwhile"),
        ],
        ids=lambda error: error.code,
    )
    async def test_a_wait_that_breaks_off_does_not_take_back_that_the_task_was_accepted(
        self, house, monkeypatch, error
    ):
        user = await house.user()
        task = await house.submit(user)

        async def fail(*_):
            raise error

        monkeypatch.setattr(house.store, "get_task", fail)
        assert await house.edge.wait(user, task, timeout_s=30) == task

    async def test_events_tell_each_state_once(self, house):
        user = await house.user()
        task = await house.submit(user)
        states = []
        async for state in (await house.edge.events(user, task.task_id, timeout_s=30)).value:
            states.append(state.status)
            if state.status == TaskStatus.PENDING:
                claim = await house.queue.claim("worker", task.task_id, lease_s=60)
            elif state.status == TaskStatus.PROCESSING:
                from s3seg.testing.harness import outcome_for

                await house.queue.finish(claim.lease, outcome_for(task))
        assert states == [TaskStatus.PENDING, TaskStatus.PROCESSING, TaskStatus.DONE]

    async def test_too_many_watchers_are_not_kept_waiting(self):
        house = House(options=EdgeOptions(watchers_at_once=1))
        user = await house.user()
        task = await house.submit(user)
        waiting = asyncio.create_task(house.edge.wait(user, task, timeout_s=30))
        await asyncio.sleep(0.01)
        assert (await house.edge.wait(user, task, timeout_s=30)).status == TaskStatus.PENDING
        with pytest.raises(UnavailableError):
            await house.edge.events(user, task.task_id, timeout_s=30)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await house.edge.events(user, task.task_id, timeout_s=30)


class TestDeleting:
    async def test_deleting_an_image_cancels_and_refunds_its_live_tasks(self, house):
        user = await house.user(credits=5)
        task = await house.submit(user)
        image = await house.store.get_image(user, task.image_id)
        await house.edge.delete_image(user, image.image_id)
        ended = (await house.edge.task(user, task.task_id)).value
        assert (ended.status, ended.error_message) == (TaskStatus.ERROR, "cancelled")
        assert (await house.edge.me(user)).value.credits == 5
        with pytest.raises(NotFoundError):
            await house.objects.get(image.object_key)

    async def test_deleting_a_result_removes_its_objects_and_no_others(self, house):
        user = await house.user()
        task = await house.finish(await house.submit(user))
        await house.edge.delete_result(user, task.task_id)
        left = [info.key async for info in house.objects.list("")]
        assert left == [house.objects.key_of(task.source_image_url)]
        with pytest.raises(NotFoundError):
            await house.edge.result(user, task.task_id)

    async def test_what_is_anothers_cannot_be_deleted(self, house):
        user, other = await house.user(), await house.user()
        task = await house.submit(other)
        for attempt in (
            house.edge.delete_result(user, task.task_id),
            house.edge.delete_image(user, task.image_id),
            house.edge.cancel(user, task.task_id),
        ):
            with pytest.raises(NotFoundError):
                await attempt
        assert (await house.edge.task(other, task.task_id)).value.status == TaskStatus.PENDING

    async def test_an_object_that_cannot_be_removed_does_not_fail_the_deletion(self, house, monkeypatch):
        user = await house.user()
        task = await house.submit(user)

        async def broken(key):
            raise UnavailableError("read-only")

        monkeypatch.setattr(house.objects, "delete", broken)
        await house.edge.delete_image(user, task.image_id)


class TestObjects:
    @pytest.mark.parametrize("key", ["../etc/passwd", "users/u/images/x.svg", "", "a/../b.png", "x.png\0"])
    async def test_what_cannot_be_a_key_is_not_found(self, house, key):
        with pytest.raises(NotFoundError):
            await house.edge.open_object(key)

    async def test_a_private_store_says_where_to_go(self, house, monkeypatch):
        async def presign(key, *, expires_s):
            return f"https://bucket.example/{key}?expires={expires_s}"

        monkeypatch.setattr(house.objects, "presign", presign)
        assert await house.edge.open_object("users/u/images/i.png") == (
            "https://bucket.example/users/u/images/i.png?expires=300"
        )


async def test_a_part_that_hangs_or_fails_is_named(monkeypatch):
    monkeypatch.setattr("s3seg.tasks.health._TIMEOUT_S", 0.05)
    house = House()

    async def hang():
        await asyncio.Event().wait()

    async def fail():
        raise UnavailableError("the disk is full")

    async def misconfigured():
        raise ConfigurationError("cannot read /home/ann/.s3seg/auth/signing-key.pem")

    monkeypatch.setattr(house.objects, "check", fail)
    monkeypatch.setattr(house.store, "check", hang)
    monkeypatch.setattr(house.tokens, "check", misconfigured)
    said = await house.edge.check()
    assert said["objects"] == "the disk is full"
    assert "no answer" in said["tasks"]
    assert said["authenticator"] == "configuration error; see the log of the service"
    assert said["rate_limiter"] is None
