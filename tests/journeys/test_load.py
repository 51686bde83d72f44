"""Many users at once, and answers that no document foresees."""

import asyncio
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3seg.adapters.local_auth import user_id_of
from s3seg.client import Client
from tests.helpers.pictures import encoded
from tests.helpers.processes import edge_process
from tests.helpers.running_edge import running
from tests.journeys.test_edge_processes import token_for

pytestmark = pytest.mark.anyio


async def test_a_thousand_submits_of_fifty_users_sell_exactly_what_was_paid_for(tmp_path):
    async with running(tmp_path) as service:
        users = [await service.user(f"user-{number}", credits=10) for number in range(50)]
        urls = await asyncio.gather(*(user.image_url() for user in users))

        async def submit(number: int) -> tuple[int, int]:
            body = {"image_url": urls[number], "text_prompt": "cat"}
            return number, (await users[number]("POST", "/api/v1/segment", json=body)).status_code

        answers = await asyncio.gather(*(submit(number) for _ in range(20) for number in range(50)))
        assert Counter(status for _, status in answers) == {202: 500, 402: 500}
        assert Counter(number for number, status in answers if status == 202) == dict.fromkeys(range(50), 10)
        for number, user in enumerate(users):
            assert await user.credits() == 0
            page = (await user("GET", "/api/v1/results?limit=100")).json()["data"]
            assert page["total"] == len(page["results"]) == 10
            ledger = await service.parts.accounts.ledger(user_id_of(f"user-{number}"))
            assert sum(entry.delta for entry in ledger) == 0
            debited = [entry.task_id for entry in ledger if entry.reason == "segment"]
            assert sorted(debited) == sorted(one["id"] for one in page["results"])


async def test_a_hundred_repeats_at_once_are_one_task(tmp_path):
    async with running(tmp_path) as service:
        ann = await service.user("ann")
        body = {"image_url": await ann.image_url(), "text_prompt": "cat"}
        headers = {"Idempotency-Key": "once"}
        answers = await asyncio.gather(
            *(ann("POST", "/api/v1/segment", json=body, headers=headers) for _ in range(100))
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["data"]["task_id"] for answer in answers}) == 1
        assert await ann.credits() == 9


def _every_answer_is_described(tmp_path, examples):
    """Call every operation with what fits its description and what does not, on things that exist and that do not."""
    data = tmp_path / "data"
    with edge_process(data, S3SEG_WELCOME_CREDITS="1000000") as (_, url), Client(url, token_for(data)) as client:
        token = token_for(data)
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) == 33
        real = {"image_url": client.upload(encoded()).image_url}

        def renew():
            """What exists, even if a call before has deleted it."""
            image = client.upload(encoded())
            real["project_id"] = client.create_project("p").id
            real["image_id"] = image.image_id
            real["task_id"] = real["result_id"] = client.submit(image.image_url, "cat").task_id

        calls = Counter()
        varied = [operation for operation in operations if _can_vary(operation)]
        for operation in operations:
            renew()
            if operation.path.endswith("/events"):
                client.cancel(real["task_id"])  # so that its stream ends

            @settings(
                max_examples=-(-examples // len(varied)) if operation in varied else 5,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            )
            @given(case=operation.as_strategy(), on_real_things=st.booleans())
            def call(case, on_real_things):
                calls[case.path] += 1
                if on_real_things:
                    if case.method == "DELETE":
                        renew()
                    for name in case.path_parameters or {}:
                        case.path_parameters[name] = real.get(name, case.path_parameters[name])
                    if isinstance(case.body, dict) and "image_url" in case.body:
                        case.body["image_url"] = real["image_url"]
                case.call_and_validate(
                    headers={"Authorization": f"Bearer {token}"},
                    # no schema can say "one of your images", nor "a picture"
                    excluded_checks=[schemathesis.checks.CHECKS.get_one("positive_data_acceptance")],
                )

            call()
        assert calls.total() >= examples


def _can_vary(operation):
    return bool(operation.body or operation.query or operation.headers or operation.path_parameters)


def test_every_answer_is_one_that_is_described(tmp_path):
    _every_answer_is_described(tmp_path, examples=100)


@pytest.mark.slow
def test_ten_thousand_answers_are_ones_that_are_described(tmp_path):
    _every_answer_is_described(tmp_path, examples=10_000)
