"""The stateful model of tasks on PostgreSQL and PostgREST."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from s3seg.testing.task_model import TaskModel
from tests.cloud.harness import SupabaseHarness


def run_model(project, *, examples, steps):
    class SupabaseTaskModel(TaskModel):
        async def new_harness(self):
            return SupabaseHarness(project)

        async def close_harness(self, harness):
            await harness.aclose()

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(SupabaseTaskModel, settings=chosen)


def test_the_database_behaves_as_the_model_says(project):
    run_model(project, examples=4, steps=25)


@pytest.mark.slow
def test_the_database_behaves_as_the_model_says_for_long(project):
    run_model(project, examples=25, steps=50)  # on each of the two kinds of project; a step is a dozen requests
