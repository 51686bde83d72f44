"""Test suite for `TaskStore`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from s3seg.errors import (
    ForbiddenError,
    InsufficientCreditsError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
)
from s3seg.tasks.clicks import Clicks, click_texts
from s3seg.tasks.concepts import MAX_CONCEPTS, ConceptDefinition, ConceptExample
from s3seg.tasks.limits import Tier
from s3seg.tasks.model import Failure, TaskRequest, TaskStatus
from s3seg.tasks.object_keys import new_image_key, public_url
from s3seg.tasks.records import Identity, NewImage
from s3seg.tasks.visual import clicks_of, visual_of_clicks
from s3seg.testing.harness import PUBLIC_BASE, AsyncSuite, TaskHarness, outcome_for
from s3seg.testing.submitted_tasks import ABSENT_IDS, SubmittedTaskTests


class TaskStoreSuite(SubmittedTaskTests, AsyncSuite):
    """Tests for a `TaskStore`. Override the fixture ``harness`` to return a new `TaskHarness`."""

    @pytest.fixture
    def harness(self) -> TaskHarness:
        """Return the adapters to test."""
        raise NotImplementedError

    # --- submitting

    async def test_a_submitted_task_is_pending_and_paid_for(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=10)
        project = await harness.store.create_project(user, "zoo")
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat", "dog"), project_id=project.project_id)
        submitted = await harness.store.submit(user, request)
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
        assert (task.deadline - task.created_at).total_seconds() == pytest.approx(harness.rules.deadline_s)
        assert await harness.store.get_task(user, task.task_id) == task
        assert await harness.credits(user) == 8

    async def test_the_ledger_lists_debit_and_refund(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=3)
        task = await harness.submit(user, prompts=("cat", "dog"))
        await harness.store.cancel(user, task.task_id)
        rows = await harness.accounts.ledger(user.user_id)
        assert [(row.delta, row.reason) for row in rows if row.task_id == task.task_id] == [
            (-2, "segment"),
            (2, "refund"),
        ]

    async def test_too_few_credits_change_nothing(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=2)
        with pytest.raises(InsufficientCreditsError):
            await harness.submit(user, prompts=("a", "b", "c"))
        assert await harness.credits(user) == 2
        assert (await harness.store.list_tasks(user)).total == 0

    async def test_concurrent_submits_cannot_spend_a_credit_twice(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=7)
        image = await harness.image(user)
        answers = await asyncio.gather(*(harness.submit(user, image=image) for _ in range(25)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, InsufficientCreditsError)]
        assert len(refused) == 18
        assert await harness.credits(user) == 0
        assert (await harness.store.list_tasks(user)).total == 7

    async def test_only_the_callers_images_can_be_segmented(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        foreign = await harness.image(other)
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
                await harness.store.submit(user, TaskRequest(image_url=url, prompts=("cat",)))
            messages.add(str(refused.value))
        assert len(messages) == 1
        assert await harness.credits(user) == 10

    async def test_only_the_callers_projects_can_be_named(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        foreign = await harness.store.create_project(other, "theirs")
        for project_id in (foreign.project_id, *ABSENT_IDS):
            with pytest.raises(InvalidRequestError):
                await harness.submit(user, project_id=project_id)
            with pytest.raises(InvalidRequestError):
                await harness.image(user, project_id=project_id)
        assert await harness.credits(user) == 10

    async def test_an_anonymous_user_may_not_write(self, harness: TaskHarness) -> None:
        anonymous = await harness.new_identity(tier=Tier.FREE, anonymous=True)
        with pytest.raises(ForbiddenError):
            await harness.image(anonymous)
        with pytest.raises(ForbiddenError):
            await harness.store.submit(anonymous, TaskRequest(image_url="x", prompts=("cat",)))
        with pytest.raises(ForbiddenError):
            await harness.store.create_project(anonymous, "zoo")
        with pytest.raises(ForbiddenError):
            await harness.store.create_concept(anonymous, "c", {})

    # --- idempotency

    async def test_an_equal_request_with_the_same_key_returns_the_same_task(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k-1")
        first, second = await harness.store.submit(user, request), await harness.store.submit(user, request)
        assert (first.created, second.created) == (True, False)
        assert second.task == first.task
        assert await harness.credits(user) == 9

    async def test_a_repeated_request_succeeds_without_credits(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=1, tier=Tier.FREE)
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        first = await harness.store.submit(user, request)
        for _ in range(8):
            assert (await harness.store.submit(user, request)).task.task_id == first.task.task_id

    async def test_concurrent_repeats_create_one_task(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        answers = await asyncio.gather(*(harness.store.submit(user, request) for _ in range(12)))
        assert len({answer.task.task_id for answer in answers}) == 1
        assert sum(answer.created for answer in answers) == 1
        assert await harness.credits(user) == 9

    async def test_the_same_key_with_a_different_request_is_refused(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        await harness.submit(user, image=image, prompts=("a, b",), key="k")
        for prompts in (("a", "b"), ("a",), ("a, b", "c")):
            with pytest.raises(InvalidRequestError):
                await harness.submit(user, image=image, prompts=prompts, key="k")
        assert await harness.credits(user) == 9

    # --- what is asked for beside words

    async def test_a_task_keeps_what_it_asks_for_beside_words(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        objects = (Clicks([(1.5, 2)], box=(0, 0, 3, 3)), Clicks([(3, 2), (0, 1)], [1, 0]))
        request = TaskRequest(image_url=image.image_url, prompts=click_texts(objects), visual=visual_of_clicks(objects))
        task = (await harness.store.submit(user, request)).task
        assert clicks_of(task.visual) == objects
        assert await harness.credits(user) == 8
        assert await harness.store.get_task(user, task.task_id) == task
        assert (await harness.store.list_tasks(user)).tasks == (task,)
        claim = await harness.queue.claim("worker-1", task.task_id, lease_s=30)
        assert claim is not None
        assert clicks_of(claim.task.visual) == objects
        done = await harness.queue.finish(claim.lease, outcome_for(task))
        assert clicks_of(done.visual) == objects
        assert clicks_of((await harness.submit(user)).visual) == ()

    async def test_the_same_key_with_other_clicks_is_refused(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        requests = [
            TaskRequest(
                image_url=image.image_url,
                prompts=("thing",),
                idempotency_key="k",
                visual=None if x is None else visual_of_clicks([Clicks([(x, 2)])]),
            )
            for x in (1, 1.25, None)
        ]
        first = await harness.store.submit(user, requests[0])
        repeat = await harness.store.submit(user, requests[0])
        assert (repeat.created, repeat.task) == (False, first.task)
        found = await harness.store.find_repeat(user, requests[0])
        assert found is not None
        assert found.task_id == first.task.task_id
        for other in requests[1:]:
            with pytest.raises(InvalidRequestError):
                await harness.store.submit(user, other)
        assert await harness.credits(user) == 9

    async def test_two_users_may_use_the_same_key(self, harness: TaskHarness) -> None:
        one, two = await harness.user(), await harness.user()
        assert await harness.submit(one, key="k") != await harness.submit(two, key="k")

    async def test_a_repeat_is_found_without_being_counted_or_paid(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=5)
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        assert await harness.store.find_repeat(user, request) is None
        paid = (await harness.store.submit(user, request)).task
        for _ in range(10):
            found = await harness.store.find_repeat(user, request)
            assert found is not None
            assert found.task_id == paid.task_id
        other = await harness.user()
        assert await harness.store.find_repeat(other, request) is None
        with pytest.raises(InvalidRequestError):
            await harness.store.find_repeat(user, replace(request, prompts=("dog",)))
        no_key = replace(request, idempotency_key=None)
        assert await harness.store.find_repeat(user, no_key) is None
        assert await harness.credits(user) == 4

    async def test_a_repeat_is_answered_whatever_would_be_refused_now(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=5)
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k")
        paid = (await harness.store.submit(user, request)).task
        for _ in range(4):
            await harness.submit(user, image=image)
        with pytest.raises(RateLimitedError):
            await harness.submit(user, image=image)
        await harness.store.delete_image(user, image.image_id)
        repeated = await harness.store.submit(user, request)
        assert (repeated.task.task_id, repeated.created) == (paid.task_id, False)

    # --- rate limit

    async def test_a_clock_that_is_set_back_refuses_submits_for_a_minute_at_most(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=10)
        image = await harness.image(user)
        for _ in range(5):
            await harness.submit(user, image=image)
        await harness.pass_time(-3600)
        with pytest.raises(RateLimitedError) as refused:
            await harness.submit(user, image=image)
        assert refused.value.retry_after <= 60
        await harness.store.account(user)  # as services do for other requests
        await harness.pass_time(30)
        with pytest.raises(RateLimitedError):
            await harness.submit(user, image=image)
        await harness.pass_time(30.5)
        await harness.submit(user, image=image)

    async def test_the_tier_limits_submits_in_any_minute(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=50)
        image = await harness.image(user)
        for _ in range(5):
            await harness.submit(user, image=image)
            await harness.pass_time(5)
        with pytest.raises(RateLimitedError) as refused:
            await harness.submit(user, image=image)
        assert refused.value.limit == 5
        assert 30 < refused.value.retry_after <= 35
        await harness.pass_time(34)
        with pytest.raises(RateLimitedError):
            await harness.submit(user, image=image)
        await harness.pass_time(1.5)
        await harness.submit(user, image=image)
        with pytest.raises(RateLimitedError):
            await harness.submit(user, image=image)
        assert await harness.credits(user) == 44

    async def test_concurrent_submits_do_not_exceed_the_limit(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=50)
        image = await harness.image(user)
        answers = await asyncio.gather(*(harness.submit(user, image=image) for _ in range(15)), return_exceptions=True)
        assert sum(isinstance(answer, RateLimitedError) for answer in answers) == 10

    async def test_deleting_a_task_does_not_reset_the_rate_limit(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE, credits=50)
        image = await harness.image(user)
        for _ in range(5):
            task = await harness.submit(user, image=image)
            await harness.store.delete_task(user, task.task_id)
        with pytest.raises(RateLimitedError):
            await harness.submit(user, image=image)

    async def test_the_rate_tells_what_remains(self, harness: TaskHarness) -> None:
        user = await harness.user(tier=Tier.FREE)
        image = await harness.image(user)
        request = TaskRequest(image_url=image.image_url, prompts=("cat",))
        rates = [(await harness.store.submit(user, request)).rate for _ in range(3)]
        assert [(rate.limit, rate.remaining) for rate in rates if rate] == [(5, 4), (5, 3), (5, 2)]

    # --- data of other users

    async def test_data_of_another_user_and_absent_data_give_the_same_error(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        task, image = await harness.submit(other), await harness.image(other)
        project = await harness.store.create_project(other, "theirs")
        store = harness.store
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
            for some_id in (foreign_id, *ABSENT_IDS):
                with pytest.raises(NotFoundError) as refused:
                    await method(user, some_id)
                messages.add(str(refused.value))
            assert len(messages) == 1
        assert (await store.list_tasks(user, project_id=project.project_id)).tasks == ()
        assert await store.get_task(other, task.task_id) == task
        assert (await store.get_project(other, project.project_id)).name == "theirs"

    # --- images and projects

    async def test_the_url_of_an_image_is_derived_from_its_key(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        assert image.image_url == public_url(PUBLIC_BASE, image.object_key)
        assert await harness.store.get_image(user, image.image_id) == image
        assert await harness.accounts.referenced([image.object_key, "users/x.png"]) == {image.object_key}

    async def test_a_task_keeps_the_id_of_the_request_that_submitted_it(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        ids = ("9b2f6a52-1f4e-4c3a-9d55-0a3a6f8f7c11", None)
        for request_id in ids:
            request = TaskRequest(image_url=image.image_url, prompts=("cat",), request_id=request_id)
            task = (await harness.store.submit(user, request)).task
            assert task.request_id == request_id
            assert await harness.store.get_task(user, task.task_id) == task
        claims = await harness.queue.claim_batch("w", limit=5, lease_s=30)
        assert {claim.task.request_id for claim in claims} == set(ids)

    async def test_repeats_with_a_key_are_equal_whatever_their_request_ids(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        made = [
            await harness.store.submit(
                user,
                TaskRequest(image_url=image.image_url, prompts=("cat",), idempotency_key="k", request_id=request_id),
            )
            for request_id in ("first", "second")
        ]
        assert [one.created for one in made] == [True, False]
        assert {one.task.request_id for one in made} == {"first"}

    async def test_an_image_is_found_by_its_key_by_its_owner_only(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        image = await harness.image(user)
        assert await harness.store.find_image(user, image.object_key) == image
        assert await harness.store.find_image(other, image.object_key) is None
        for absent in ("", "x", "\0", "users/x", image.object_key + " ", new_image_key(user.user_id, "image/png")):
            assert await harness.store.find_image(user, absent) is None
        await harness.store.delete_image(user, image.image_id)
        assert await harness.store.find_image(user, image.object_key) is None

    async def test_an_image_is_registered_once_and_under_the_prefix_of_its_owner(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        image = await harness.image(user)

        async def register(who: Identity, key: str) -> None:
            await harness.store.register_image(
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

    async def test_deleting_an_image_cancels_its_live_tasks_only(self, harness: TaskHarness) -> None:
        user = await harness.user()
        image = await harness.image(user)
        done, live = await harness.submit(user, image=image), await harness.submit(user, image=image)
        await harness.queue.finish(await harness.claim(done), outcome_for(done))
        assert await harness.store.delete_image(user, image.image_id) == image
        assert (await harness.store.get_task(user, live.task_id)).status == TaskStatus.ERROR
        kept = await harness.store.get_task(user, done.task_id)
        assert (kept.status, kept.image_id, kept.source_image_url) == (TaskStatus.DONE, None, image.image_url)
        assert await harness.credits(user) == 9
        with pytest.raises(InvalidRequestError):
            await harness.submit(user, image=image)
        assert await harness.accounts.referenced([image.object_key]) == set()

    async def test_projects_are_listed_renamed_and_deleted(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        await harness.store.create_project(other, "theirs")
        made = []
        for name in ("a", "b", "c"):
            made.append(await harness.store.create_project(user, name))
            await harness.pass_time(0.01)
        page = await harness.store.list_projects(user, page=1, limit=2)
        assert ([project.name for project in page.projects], page.total) == (["c", "b"], 3)
        renamed = await harness.store.rename_project(user, made[0].project_id, "z")
        assert (renamed.name, renamed.created_at) == ("z", made[0].created_at)
        await harness.store.delete_project(user, made[1].project_id)
        page = await harness.store.list_projects(user)
        assert [project.name for project in page.projects] == ["c", "z"]

    # --- concepts

    async def test_concepts_are_kept_listed_and_deleted(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        image = await harness.image(user)
        box = (1.0, 2.0, 3.5, 4.0)
        example = ConceptExample(image.image_url, (box,), (box, box))
        definitions = [ConceptDefinition(words, (example,) * n) for words, n in ((None, 1), ("mug", 2), ("mug", 4))]
        theirs = await harness.store.create_concept(other, "theirs", definitions[0].to_dict())
        made = []
        for name, definition in zip(("a", "b", "a"), definitions, strict=True):
            made.append(await harness.store.create_concept(user, name, definition.to_dict()))
            await harness.pass_time(0.01)
        for concept, definition in zip(made, definitions, strict=True):
            found = await harness.store.get_concept(user, concept.concept_id)
            assert found.name == concept.name
            assert ConceptDefinition.from_dict(found.definition) == definition
        listed = await harness.store.list_concepts(user)
        assert [one.concept_id for one in listed] == [one.concept_id for one in reversed(made)]
        await harness.store.delete_concept(user, made[1].concept_id)
        assert [one.name for one in await harness.store.list_concepts(user)] == ["a", "a"]
        messages = set()
        for some_id in (theirs.concept_id, made[1].concept_id, *ABSENT_IDS):
            for method in (harness.store.get_concept, harness.store.delete_concept):
                with pytest.raises(NotFoundError) as refused:
                    await method(user, some_id)
                messages.add(str(refused.value))
        assert len(messages) == 1
        assert [one.name for one in await harness.store.list_concepts(other)] == ["theirs"]

    async def test_a_user_has_a_hundred_concepts_at_most(self, harness: TaskHarness) -> None:
        user, other = await harness.user(), await harness.user()
        definition = ConceptDefinition(None, (ConceptExample("u", ((1, 2, 3, 4),)),)).to_dict()
        made = [await harness.store.create_concept(user, "c", definition) for _ in range(MAX_CONCEPTS)]
        with pytest.raises(InvalidRequestError, match="100 concepts"):
            await harness.store.create_concept(user, "c", definition)
        await harness.store.create_concept(other, "c", definition)
        await harness.store.delete_concept(user, made[0].concept_id)
        await harness.store.create_concept(user, "c", definition)
        assert len(await harness.store.list_concepts(user)) == MAX_CONCEPTS

    async def test_deleting_a_project_keeps_its_tasks_and_images(self, harness: TaskHarness) -> None:
        user = await harness.user()
        project = await harness.store.create_project(user, "zoo")
        image = await harness.image(user, project_id=project.project_id)
        task = await harness.submit(user, image=image, project_id=project.project_id)
        await harness.store.delete_project(user, project.project_id)
        assert (await harness.store.get_task(user, task.task_id)).project_id is None
        assert (await harness.store.get_image(user, image.image_id)).project_id is None
        assert (await harness.store.list_tasks(user, project_id=project.project_id)).total == 0
        assert (await harness.store.list_tasks(user)).total == 1

    # --- errors and health

    async def test_the_owner_can_read_the_error_of_a_task(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        failure = Failure(code="INVALID_REQUEST", message="the prompt has 40 tokens, the model takes 32" * 30)
        await harness.queue.fail(await harness.claim(task), failure)
        seen = await harness.store.get_task(user, task.task_id)
        assert seen.error_code == "INVALID_REQUEST"
        assert seen.error_message == failure.message[:500]

    async def test_adapters_pass_their_check_and_can_be_closed_twice(self, harness: TaskHarness) -> None:
        for part in (harness.store, harness.queue, harness.accounts):
            await part.check()
        for part in (harness.store, harness.queue, harness.accounts) * 2:
            await part.aclose()
