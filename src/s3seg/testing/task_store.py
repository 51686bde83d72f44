"""What every `TaskStore` must do for its users."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from s3seg.errors import (
    ForbiddenError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
)
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Failure, Order, TaskStatus
from s3seg.tasks.object_keys import new_image_key, public_url
from s3seg.tasks.records import Cursor, Identity, NewImage
from s3seg.testing.world import PUBLIC_BASE, AsyncSuite, TaskWorld, outcome_for

NOWHERE = ("", "x", "..", "null", "0" * 5000, "é", "\ud800", "'; DROP TABLE tasks; --", str(uuid.UUID(int=7)))


class TaskStoreSuite(AsyncSuite):
    """Give a fixture ``world``: a new `TaskWorld`."""

    @pytest.fixture
    def world(self) -> TaskWorld:
        """The installation under test."""
        raise NotImplementedError

    # --- submitting

    async def test_a_submitted_task_is_pending_and_paid_for(self, world: TaskWorld) -> None:
        user = await world.user(credits=10)
        project = await world.store.create_project(user, "zoo")
        image = await world.image(user)
        order = Order(image_url=image.image_url, prompts=("cat", "dog"), project_id=project.project_id)
        submitted = await world.store.submit(user, order)
        task = submitted.task
        assert submitted.created
        assert (task.status, task.text_prompt, task.cost) == (TaskStatus.PENDING, "cat, dog", 2)
        assert (task.user_id, task.image_id, task.project_id) == (
            user.user_id,
            image.image_id,
            project.project_id,
        )
        assert task.source_image_url == image.image_url
        assert task.created_at.utcoffset() is not None
        assert (task.deadline - task.created_at).total_seconds() == pytest.approx(world.rules.deadline_s)
        assert await world.store.get_task(user, task.task_id) == task
        assert await world.credits(user) == 8

    async def test_the_ledger_names_each_movement(self, world: TaskWorld) -> None:
        user = await world.user(credits=3)
        task = await world.submit(user, prompts=("cat", "dog"))
        await world.store.cancel(user, task.task_id)
        rows = await world.accounts.ledger(user.user_id)
        assert [(row.delta, row.reason) for row in rows if row.task_id == task.task_id] == [
            (-2, "segment"),
            (2, "refund"),
        ]

    async def test_too_few_credits_change_nothing(self, world: TaskWorld) -> None:
        user = await world.user(credits=2)
        with pytest.raises(InsufficientCreditsError):
            await world.submit(user, prompts=("a", "b", "c"))
        assert await world.credits(user) == 2
        assert (await world.store.list_tasks(user)).total == 0

    async def test_submits_at_once_cannot_spend_a_credit_twice(self, world: TaskWorld) -> None:
        user = await world.user(credits=7)
        image = await world.image(user)
        answers = await asyncio.gather(*(world.submit(user, image=image) for _ in range(25)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, InsufficientCreditsError)]
        assert len(refused) == 18
        assert await world.credits(user) == 0
        assert (await world.store.list_tasks(user)).total == 7

    async def test_only_the_callers_images_can_be_segmented(self, world: TaskWorld) -> None:
        user, other = await world.user(), await world.user()
        foreign = await world.image(other)
        missing = public_url(PUBLIC_BASE, new_image_key(user.user_id, "image/png"))
        messages = set()
        for url in (
            foreign.image_url,
            missing,
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "",
        ):
            with pytest.raises(InvalidRequestError) as refused:
                await world.store.submit(user, Order(image_url=url, prompts=("cat",)))
            messages.add(str(refused.value))
        assert len(messages) == 1
        assert await world.credits(user) == 10

    async def test_only_the_callers_projects_can_be_named(self, world: TaskWorld) -> None:
        user, other = await world.user(), await world.user()
        foreign = await world.store.create_project(other, "theirs")
        for project_id in (foreign.project_id, *NOWHERE):
            with pytest.raises(InvalidRequestError):
                await world.submit(user, project_id=project_id)
            with pytest.raises(InvalidRequestError):
                await world.image(user, project_id=project_id)
        assert await world.credits(user) == 10

    async def test_an_anonymous_user_may_not_write(self, world: TaskWorld) -> None:
        anonymous = await world.new_identity(tier=Tier.FREE, anonymous=True)
        with pytest.raises(ForbiddenError):
            await world.image(anonymous)
        with pytest.raises(ForbiddenError):
            await world.store.submit(anonymous, Order(image_url="x", prompts=("cat",)))
        with pytest.raises(ForbiddenError):
            await world.store.create_project(anonymous, "zoo")

    # --- idempotency

    async def test_the_same_key_and_order_give_the_same_task_for_one_debit(self, world: TaskWorld) -> None:
        user = await world.user()
        image = await world.image(user)
        order = Order(image_url=image.image_url, prompts=("cat",), idempotency_key="k-1")
        first, second = await world.store.submit(user, order), await world.store.submit(user, order)
        assert (first.created, second.created) == (True, False)
        assert second.task == first.task
        assert await world.credits(user) == 9

    async def test_a_repeat_is_answered_even_with_no_credits_left(self, world: TaskWorld) -> None:
        user = await world.user(credits=1, tier=Tier.FREE)
        image = await world.image(user)
        order = Order(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        first = await world.store.submit(user, order)
        for _ in range(8):
            assert (await world.store.submit(user, order)).task.task_id == first.task.task_id

    async def test_repeats_at_once_make_one_task(self, world: TaskWorld) -> None:
        user = await world.user()
        image = await world.image(user)
        order = Order(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        answers = await asyncio.gather(*(world.store.submit(user, order) for _ in range(12)))
        assert len({answer.task.task_id for answer in answers}) == 1
        assert sum(answer.created for answer in answers) == 1
        assert await world.credits(user) == 9

    async def test_the_same_key_with_another_order_is_refused(self, world: TaskWorld) -> None:
        user = await world.user()
        image = await world.image(user)
        await world.submit(user, image=image, prompts=("a, b",), key="k")
        for prompts in (("a", "b"), ("a",), ("a, b", "c")):
            with pytest.raises(InvalidRequestError):
                await world.submit(user, image=image, prompts=prompts, key="k")
        assert await world.credits(user) == 9

    async def test_two_users_may_use_one_key(self, world: TaskWorld) -> None:
        one, two = await world.user(), await world.user()
        assert await world.submit(one, key="k") != await world.submit(two, key="k")

    # --- the rate of submits

    async def test_the_tier_limits_submits_in_any_minute(self, world: TaskWorld) -> None:
        user = await world.user(tier=Tier.FREE, credits=50)
        image = await world.image(user)
        for _ in range(5):
            await world.submit(user, image=image)
            await world.pass_time(5)
        with pytest.raises(RateLimitedError) as refused:
            await world.submit(user, image=image)
        assert refused.value.limit == 5
        assert 30 < refused.value.retry_after <= 35
        await world.pass_time(34)
        with pytest.raises(RateLimitedError):
            await world.submit(user, image=image)
        await world.pass_time(1.5)
        await world.submit(user, image=image)
        with pytest.raises(RateLimitedError):
            await world.submit(user, image=image)
        assert await world.credits(user) == 44

    async def test_submits_at_once_do_not_slip_past_the_limit(self, world: TaskWorld) -> None:
        user = await world.user(tier=Tier.FREE, credits=50)
        image = await world.image(user)
        answers = await asyncio.gather(*(world.submit(user, image=image) for _ in range(15)), return_exceptions=True)
        assert sum(isinstance(answer, RateLimitedError) for answer in answers) == 10

    async def test_deleting_or_cancelling_does_not_make_room(self, world: TaskWorld) -> None:
        user = await world.user(tier=Tier.FREE, credits=50)
        image = await world.image(user)
        for _ in range(5):
            task = await world.submit(user, image=image)
            await world.store.delete_task(user, task.task_id)
        with pytest.raises(RateLimitedError):
            await world.submit(user, image=image)

    async def test_a_decision_tells_what_remains(self, world: TaskWorld) -> None:
        user = await world.user(tier=Tier.FREE)
        image = await world.image(user)
        order = Order(image_url=image.image_url, prompts=("cat",))
        rates = [(await world.store.submit(user, order)).rate for _ in range(3)]
        assert [(rate.limit, rate.remaining) for rate in rates if rate] == [(5, 4), (5, 3), (5, 2)]

    # --- others' things are absent

    async def test_what_is_anothers_is_as_absent_as_what_never_was(self, world: TaskWorld) -> None:
        user, other = await world.user(), await world.user()
        task, image = await world.submit(other), await world.image(other)
        project = await world.store.create_project(other, "theirs")
        store = world.store
        attempts = [
            (store.get_task, task.task_id),
            (store.cancel, task.task_id),
            (store.delete_task, task.task_id),
            (store.get_image, image.image_id),
            (store.delete_image, image.image_id),
            (store.get_project, project.project_id),
            (store.delete_project, project.project_id),
            (lambda who, project_id: store.rename_project(who, project_id, "mine"), project.project_id),
        ]
        for method, foreign_id in attempts:
            messages = set()
            for some_id in (foreign_id, *NOWHERE):
                with pytest.raises(NotFoundError) as refused:
                    await method(user, some_id)
                messages.add(str(refused.value))
            assert len(messages) == 1
        assert (await store.list_tasks(user, project_id=project.project_id)).tasks == ()
        assert await store.get_task(other, task.task_id) == task
        assert (await store.get_project(other, project.project_id)).name == "theirs"

    # --- lists

    async def test_a_list_is_newest_first_with_total_and_pages(self, world: TaskWorld) -> None:
        user, other = await world.user(credits=20), await world.user()
        image = await world.image(user)
        made = []
        for _ in range(7):
            made.append((await world.submit(user, image=image)).task_id)
            await world.pass_time(0.01)
        await world.submit(other)
        newest_first = made[::-1]
        pages = [await world.store.list_tasks(user, page=page, limit=3) for page in (1, 2, 3, 4)]
        assert [[task.task_id for task in page.tasks] for page in pages] == [
            newest_first[:3],
            newest_first[3:6],
            newest_first[6:],
            [],
        ]
        assert {page.total for page in pages} == {7}
        assert [page.next_cursor is None for page in pages] == [False, False, True, True]

    async def test_cursors_walk_the_list_though_it_grows(self, world: TaskWorld) -> None:
        user = await world.user(credits=20)
        image = await world.image(user)
        made = [(await world.submit(user, image=image)).task_id for _ in range(7)]
        seen: list[str] = []
        cursor: Cursor | None = None
        while True:
            page = await world.store.list_tasks(user, limit=2, after=cursor)
            seen += [task.task_id for task in page.tasks]
            if page.next_cursor is None:
                break
            cursor = Cursor.decode(page.next_cursor.encode())
            await world.pass_time(0.01)
            await world.submit(user, image=image)
        assert sorted(seen) == sorted(made)

    async def test_a_project_filters_the_list(self, world: TaskWorld) -> None:
        user = await world.user()
        project = await world.store.create_project(user, "zoo")
        inside = await world.submit(user, project_id=project.project_id)
        await world.submit(user)
        page = await world.store.list_tasks(user, project_id=project.project_id)
        assert ([task.task_id for task in page.tasks], page.total) == ([inside.task_id], 1)
        for nowhere in NOWHERE:
            empty = await world.store.list_tasks(user, project_id=nowhere)
            assert (empty.tasks, empty.total) == ((), 0)

    async def test_a_list_shows_results(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        outcome = outcome_for(task)
        await world.queue.finish(await world.claim(task), outcome)
        (shown,) = (await world.store.list_tasks(user)).tasks
        assert (shown.status, shown.mask_image_url) == (TaskStatus.DONE, outcome.mask_image_url)
        assert (shown.labels, dict(shown.metadata)) == (outcome.labels, dict(outcome.metadata))

    # --- cancelling and deleting

    async def test_a_cancelled_task_is_in_error_and_refunded_once(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user, prompts=("a", "b"))
        ended = await world.store.cancel(user, task.task_id)
        assert (ended.status, ended.error_message) == (TaskStatus.ERROR, "cancelled")
        assert await world.store.cancel(user, task.task_id) == ended
        assert await world.credits(user) == 10

    async def test_a_finished_task_stays_as_it_is(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        done = await world.queue.finish(await world.claim(task), outcome_for(task))
        assert await world.store.cancel(user, task.task_id) == done
        assert await world.credits(user) == 9

    async def test_deleting_a_live_task_refunds_it(self, world: TaskWorld) -> None:
        user = await world.user()
        pending, held = await world.submit(user), await world.submit(user)
        await world.claim(held)
        for task in (pending, held):
            gone = await world.store.delete_task(user, task.task_id)
            assert gone.status == TaskStatus.ERROR
            with pytest.raises(NotFoundError):
                await world.store.get_task(user, task.task_id)
        assert await world.credits(user) == 10
        assert (await world.store.list_tasks(user)).total == 0

    async def test_a_deleted_result_stays_paid_for_and_tells_its_objects(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        outcome = outcome_for(task)
        await world.queue.finish(await world.claim(task), outcome)
        assert await world.accounts.referenced(outcome.object_keys) == set(outcome.object_keys)
        gone = await world.store.delete_task(user, task.task_id)
        assert sorted(gone.object_keys) == sorted(outcome.object_keys)
        assert await world.accounts.referenced(outcome.object_keys) == set()
        assert await world.credits(user) == 9

    async def test_deleting_an_image_cancels_its_live_tasks_only(self, world: TaskWorld) -> None:
        user = await world.user()
        image = await world.image(user)
        done, live = await world.submit(user, image=image), await world.submit(user, image=image)
        await world.queue.finish(await world.claim(done), outcome_for(done))
        assert await world.store.delete_image(user, image.image_id) == image
        assert (await world.store.get_task(user, live.task_id)).status == TaskStatus.ERROR
        kept = await world.store.get_task(user, done.task_id)
        assert (kept.status, kept.image_id, kept.source_image_url) == (TaskStatus.DONE, None, image.image_url)
        assert await world.credits(user) == 9
        with pytest.raises(InvalidRequestError):
            await world.submit(user, image=image)
        assert await world.accounts.referenced([image.object_key]) == set()

    # --- images and projects

    async def test_an_image_gets_its_address_from_its_key(self, world: TaskWorld) -> None:
        user = await world.user()
        image = await world.image(user)
        assert image.image_url == public_url(PUBLIC_BASE, image.object_key)
        assert await world.store.get_image(user, image.image_id) == image
        assert await world.accounts.referenced([image.object_key, "users/x.png"]) == {image.object_key}

    async def test_an_image_lies_under_its_owners_prefix_and_only_once(self, world: TaskWorld) -> None:
        user, other = await world.user(), await world.user()
        image = await world.image(user)

        async def register(who: Identity, key: str) -> None:
            await world.store.register_image(
                who, NewImage(object_key=key, content_type="image/png", size_bytes=1, width=1, height=1)
            )

        for who, key in (
            (user, image.object_key),
            (other, image.object_key),
            (user, new_image_key(other.user_id, "image/png")),
            (user, f"users/{user.user_id}/images/../../x.png"),
            (user, "x.png"),
        ):
            with pytest.raises(InvalidRequestError):
                await register(who, key)

    async def test_projects_are_listed_renamed_and_deleted(self, world: TaskWorld) -> None:
        user, other = await world.user(), await world.user()
        await world.store.create_project(other, "theirs")
        made = []
        for name in ("a", "b", "c"):
            made.append(await world.store.create_project(user, name))
            await world.pass_time(0.01)
        page = await world.store.list_projects(user, page=1, limit=2)
        assert ([project.name for project in page.projects], page.total) == (["c", "b"], 3)
        renamed = await world.store.rename_project(user, made[0].project_id, "z")
        assert (renamed.name, renamed.created_at) == ("z", made[0].created_at)
        await world.store.delete_project(user, made[1].project_id)
        page = await world.store.list_projects(user)
        assert [project.name for project in page.projects] == ["c", "z"]

    async def test_a_deleted_project_leaves_its_tasks_and_images(self, world: TaskWorld) -> None:
        user = await world.user()
        project = await world.store.create_project(user, "zoo")
        image = await world.image(user, project_id=project.project_id)
        task = await world.submit(user, image=image, project_id=project.project_id)
        await world.store.delete_project(user, project.project_id)
        assert (await world.store.get_task(user, task.task_id)).project_id is None
        assert (await world.store.get_image(user, image.image_id)).project_id is None
        assert (await world.store.list_tasks(user, project_id=project.project_id)).total == 0
        assert (await world.store.list_tasks(user)).total == 1

    # --- the rest

    async def test_an_error_is_explained_to_its_owner(self, world: TaskWorld) -> None:
        user = await world.user()
        task = await world.submit(user)
        failure = Failure(code="INVALID_REQUEST", message="the prompt has 40 tokens, the model takes 32" * 30)
        await world.queue.fail(await world.claim(task), failure)
        seen = await world.store.get_task(user, task.task_id)
        assert seen.error_code == "INVALID_REQUEST"
        assert seen.error_message == failure.message[:500]

    async def test_a_store_checks_out_and_can_be_closed_twice(self, world: TaskWorld) -> None:
        for part in (world.store, world.queue, world.accounts):
            await part.check()
        for part in (world.store, world.queue, world.accounts) * 2:
            await part.aclose()
