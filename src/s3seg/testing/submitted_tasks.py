"""Tests for what users do with tasks that they have submitted: list, cancel and delete them."""

from __future__ import annotations

import uuid

import pytest

from s3seg.errors import NotFoundError
from s3seg.tasks.model import TaskStatus
from s3seg.tasks.records import Cursor
from s3seg.testing.harness import TaskHarness, outcome_for

ABSENT_IDS = ("", "x", "..", "null", "0" * 5000, "é", "\ud800", "'; DROP TABLE tasks; --", str(uuid.UUID(int=7)))
"""Ids of nothing: malformed ones, and one that is well formed."""


class SubmittedTaskTests:
    """Part of `TaskStoreSuite`, which gives it the fixture ``harness``."""

    # --- lists

    async def test_a_list_is_newest_first_with_total_and_pages(self, harness: TaskHarness) -> None:
        user, other = await harness.user(credits=20), await harness.user()
        image = await harness.image(user)
        made = []
        for _ in range(7):
            made.append((await harness.submit(user, image=image)).task_id)
            await harness.pass_time(0.01)
        await harness.submit(other)
        newest_first = made[::-1]
        pages = [await harness.store.list_tasks(user, page=page, limit=3) for page in (1, 2, 3, 4)]
        assert [[task.task_id for task in page.tasks] for page in pages] == [
            newest_first[:3],
            newest_first[3:6],
            newest_first[6:],
            [],
        ]
        assert {page.total for page in pages} == {7}
        assert [page.next_cursor is None for page in pages] == [False, False, True, True]

    async def test_cursors_visit_every_task_once_while_the_list_grows(self, harness: TaskHarness) -> None:
        user = await harness.user(credits=20)
        image = await harness.image(user)
        made = [(await harness.submit(user, image=image)).task_id for _ in range(7)]
        seen: list[str] = []
        cursor: Cursor | None = None
        while True:
            page = await harness.store.list_tasks(user, limit=2, after=cursor)
            seen += [task.task_id for task in page.tasks]
            if page.next_cursor is None:
                break
            cursor = Cursor.decode(page.next_cursor.encode())
            await harness.pass_time(0.01)
            await harness.submit(user, image=image)
        assert sorted(seen) == sorted(made)

    async def test_a_project_filters_the_list(self, harness: TaskHarness) -> None:
        user = await harness.user()
        project = await harness.store.create_project(user, "zoo")
        inside = await harness.submit(user, project_id=project.project_id)
        await harness.submit(user)
        page = await harness.store.list_tasks(user, project_id=project.project_id)
        assert ([task.task_id for task in page.tasks], page.total) == ([inside.task_id], 1)
        for absent_id in ABSENT_IDS:
            empty = await harness.store.list_tasks(user, project_id=absent_id)
            assert (empty.tasks, empty.total) == ((), 0)

    async def test_a_list_contains_results(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        outcome = outcome_for(task)
        await harness.queue.finish(await harness.claim(task), outcome)
        (shown,) = (await harness.store.list_tasks(user)).tasks
        assert (shown.status, shown.mask_image_url) == (TaskStatus.DONE, outcome.mask_image_url)
        assert (shown.labels, dict(shown.metadata)) == (outcome.labels, dict(outcome.metadata))

    # --- cancelling and deleting

    async def test_a_cancelled_task_is_in_error_and_refunded_once(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user, prompts=("a", "b"))
        ended = await harness.store.cancel(user, task.task_id)
        assert (ended.status, ended.error_message) == (TaskStatus.ERROR, "cancelled")
        assert await harness.store.cancel(user, task.task_id) == ended
        assert await harness.credits(user) == 10

    async def test_cancelling_a_finished_task_changes_nothing(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        done = await harness.queue.finish(await harness.claim(task), outcome_for(task))
        assert await harness.store.cancel(user, task.task_id) == done
        assert await harness.credits(user) == 9

    async def test_deleting_a_live_task_refunds_it(self, harness: TaskHarness) -> None:
        user = await harness.user()
        pending, held = await harness.submit(user), await harness.submit(user)
        await harness.claim(held)
        for task in (pending, held):
            gone = await harness.store.delete_task(user, task.task_id)
            assert gone.status == TaskStatus.ERROR
            with pytest.raises(NotFoundError):
                await harness.store.get_task(user, task.task_id)
        assert await harness.credits(user) == 10
        assert (await harness.store.list_tasks(user)).total == 0

    async def test_a_deleted_result_is_not_refunded_and_returns_its_objects(self, harness: TaskHarness) -> None:
        user = await harness.user()
        task = await harness.submit(user)
        outcome = outcome_for(task)
        await harness.queue.finish(await harness.claim(task), outcome)
        assert await harness.accounts.referenced(outcome.object_keys) == set(outcome.object_keys)
        gone = await harness.store.delete_task(user, task.task_id)
        assert sorted(gone.object_keys) == sorted(outcome.object_keys)
        assert await harness.accounts.referenced(outcome.object_keys) == set()
        assert await harness.credits(user) == 9
