"""What holds for images when the public base URL of a service has changed, for tests of every task store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from s3seg.errors import InvalidRequestError
from s3seg.tasks.model import TaskRequest
from s3seg.tasks.object_keys import public_url
from s3seg.testing.harness import PUBLIC_BASE, TaskHarness

MOVED_BASE = "https://moved.example/seg/files"


async def check_both_urls_of_an_image(harness: TaskHarness, move: Callable[[str], Awaitable[None]]) -> None:
    """Check that an image has two URLs after a move: the one that its upload was told, and the present one."""
    user, other = await harness.user(), await harness.user()
    image, foreign = await harness.image(user), await harness.image(other)
    await move(MOVED_BASE)
    present = public_url(MOVED_BASE, image.object_key)
    for url in (image.image_url, present):
        task = (await harness.store.submit(user, TaskRequest(image_url=url, prompts=("cat",)))).task
        assert (task.image_id, task.source_image_url) == (image.image_id, url)
    for url in (
        public_url("https://elsewhere.example/files", image.object_key),
        public_url(MOVED_BASE, foreign.object_key),
        f"{MOVED_BASE}//{image.object_key}",
        f"{MOVED_BASE}/{image.object_key}?x=1",
        f"{MOVED_BASE}/",
        image.object_key,
    ):
        with pytest.raises(InvalidRequestError, match="not one of your uploads"):
            await harness.store.submit(user, TaskRequest(image_url=url, prompts=("cat",)))
    await move(PUBLIC_BASE)
    with pytest.raises(InvalidRequestError):
        await harness.store.submit(user, TaskRequest(image_url=present, prompts=("cat",)))
    assert await harness.credits(user) == 8
