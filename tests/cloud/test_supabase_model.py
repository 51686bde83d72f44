"""The stateful model of the task machine runs on PostgreSQL and PostgREST too."""

import pytest
from hypothesis import HealthCheck, settings

from s3seg.testing.task_model import TaskModel

from .worlds import SupabaseWorld


class SupabaseTaskModel(TaskModel):
    """Each example is an installation of its own on the one project."""

    project = None

    async def new_world(self):
        return SupabaseWorld(self.project)

    async def close_world(self, world):
        await world.aclose()


@pytest.fixture(autouse=True)
def _model_on_project(project):
    SupabaseTaskModel.project = project


_SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))


class TestSupabaseTaskModel(SupabaseTaskModel.TestCase):
    settings = settings(_SETTINGS, max_examples=4, stateful_step_count=25)


@pytest.mark.slow
class TestLongSupabaseTaskModel(SupabaseTaskModel.TestCase):
    settings = settings(_SETTINGS, max_examples=100, stateful_step_count=50)
