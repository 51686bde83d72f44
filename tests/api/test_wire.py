"""Our wire models, rendered to JSON Schema, against the original's interfaces."""

import json
import re
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from s3seg.api import edge, envelope, gpu
from s3seg.api.additions import LimitsResponse, ProjectRequest
from s3seg.api.codes import ERROR_CODES, code_of, status_of
from s3seg.api.fields import ResponseModel, check_prompt, explain
from s3seg.errors import NotFoundError, S3segError, UnavailableError
from s3seg.tasks.limits import RATE_LIMITS, Action
from s3seg.tasks.visual import clicks_of, tile_of
from tests.api import original

SCHEMAS = {
    "string": {"type": "string"},
    "uuid": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "number": {"type": ("number", "integer")},
    '"pending"': {"type": "string", "const": "pending"},
    "string[]": {"type": "array", "items": {"type": "string"}},
    "string | null": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "list[str]": {"type": "array", "items": {"type": "string"}},
    "Optional[str]": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "Optional[float]": {"anyOf": [{"type": "number"}, {"type": "null"}]},
}
INTERFACES = [
    pytest.param(module, name, fields, id=name)
    for module, interfaces in (
        (edge, original.EDGE),
        (envelope, original.ENVELOPE),
        (gpu, original.GPU),
    )
    for name, fields in interfaces.items()
]


def schema_of(module, name):
    model = getattr(module, name)
    mode = "serialization" if issubclass(model, ResponseModel) else "validation"
    return model.model_json_schema(mode=mode)


def assert_type(schema, written):
    reference = written.removesuffix("[]").removeprefix("list[").removesuffix("]")
    if reference[0].isupper() and not reference.startswith("Optional"):
        target = schema["items"] if written != reference else schema
        assert target["$ref"] == f"#/$defs/{reference}"
        return
    for key, expected in SCHEMAS[written].items():
        if key == "type" and isinstance(expected, tuple):
            assert schema["type"] in expected
        elif key == "items":
            assert schema["items"]["type"] == expected["type"]
        elif key == "anyOf":
            assert [{"type": option["type"]} for option in schema["anyOf"]] == expected
        else:
            assert schema[key] == expected
    if written == "uuid":
        assert schema["format"] == "uuid"


@pytest.mark.parametrize(("module", "name", "fields"), INTERFACES)
def test_a_model_is_the_originals_interface_field_by_field(module, name, fields):
    schema = schema_of(module, name)
    required = set(schema.get("required", []))
    added = {field.removesuffix("?") for field in original.ADDED.get(name, ())}
    assert set(schema["properties"]) == {field.removesuffix("?") for field in fields} | added
    for field, written in fields.items():
        plain = field.removesuffix("?")
        assert_type(schema["properties"][plain], written)
        optional = field.endswith("?") or (name, plain) in original.LAXER
        if name == "ResultMetadata":
            continue  # zeros until done: always sent, though the model has defaults
        assert (plain in required) == (not optional), field
    assert not added & required


def test_every_field_of_the_metadata_is_sent():
    sent = json.loads(edge.ResultMetadata().model_dump_json())
    assert sent == {"inference_time_ms": 0, "confidence": 0, "model_version": ""}


def test_metadata_may_hold_more():
    sent = edge.ResultMetadata(inference_time_ms=1, confidence=1, model_version="x", stage_ms={"a": 1})
    assert json.loads(sent.model_dump_json())["stage_ms"] == {"a": 1}


def test_the_status_of_a_task_is_one_of_four():
    assert [status.value for status in edge.TaskStatus] == original.TASK_STATUS


def test_the_table_of_errors_is_the_originals_and_two_more():
    ours = {code: row.status for code, row in ERROR_CODES.items()}
    assert ours == original.ERROR_CODES | {"METHOD_NOT_ALLOWED": 405, "UNAVAILABLE": 503}


def test_every_error_of_ours_has_a_row_in_the_table():
    todo = [S3segError]
    while todo:
        kind = todo.pop()
        assert kind.code in ERROR_CODES, kind
        todo += kind.__subclasses__()
    assert (code_of(NotFoundError("x")), status_of(NotFoundError("x"))) == ("NOT_FOUND", 404)
    assert status_of(UnavailableError("x")) == 503
    assert (code_of(KeyError("x")), status_of(KeyError("x"))) == ("INTERNAL_ERROR", 500)


def test_the_table_of_rates_is_the_originals():
    ours = {
        tier.value: (row[Action.UPLOAD], row[Action.SEGMENT], row[Action.RESULTS]) for tier, row in RATE_LIMITS.items()
    }
    assert ours == original.RATES
    for row in RATE_LIMITS.values():
        assert row[Action.TASKS] == row[Action.RESULTS]
        assert LimitsResponse.of(dict(row)).segment == row[Action.SEGMENT]


def test_an_envelope_has_exactly_its_four_fields():
    now, request_id = datetime.now(UTC), str(uuid.uuid4())
    task = edge.SegmentResponse(task_id=str(uuid.uuid4()), status="pending")
    good = envelope.ApiResponse[edge.SegmentResponse].ok(task, request_id=request_id, timestamp=now)
    bad = envelope.ApiResponse[edge.SegmentResponse].failed(
        "NOT_FOUND", "no such task", request_id=request_id, timestamp=now
    )
    sent = [json.loads(response.model_dump_json()) for response in (good, bad)]
    assert [list(body) for body in sent] == [["success", "data", "error", "meta"]] * 2
    assert sent[0]["data"] == {"task_id": task.task_id, "status": "pending"}
    assert (sent[0]["success"], sent[0]["error"]) == (True, None)
    assert (sent[1]["success"], sent[1]["data"]) == (False, None)
    assert sent[1]["error"] == {"code": "NOT_FOUND", "message": "no such task"}
    assert sent[0]["meta"]["request_id"] == request_id
    assert datetime.fromisoformat(sent[0]["meta"]["timestamp"]) == now


def test_a_field_marked_optional_is_left_out_and_never_null():
    now = datetime.now(UTC)
    task = edge.TaskResponse(task_id=str(uuid.uuid4()), status=edge.TaskStatus.DONE, created_at=now, updated_at=now)
    assert set(json.loads(task.model_dump_json())) == {"task_id", "status", "created_at", "updated_at"}
    full = task.model_copy(update={"result_id": task.task_id})
    assert json.loads(full.model_dump_json())["result_id"] == task.task_id


def test_a_field_that_may_be_null_is_present_as_null():
    health = gpu.HealthResponse(
        status="ok",
        model_loaded=False,
        gpu_available=False,
        gpu_name=None,
        vram_used_mb=None,
        vram_total_mb=None,
    )
    assert json.loads(health.model_dump_json())["gpu_name"] is None


IMAGE = "https://cdn.example.com/users/u/images/i.png"


@pytest.mark.parametrize(
    ("body", "prompts"),
    [
        ({"text_prompt": "cat"}, ("cat",)),
        ({"text_prompt": "a cat, a dog"}, ("a cat, a dog",)),
        ({"text_prompts": ["cat", "dog"]}, ("cat", "dog")),
        ({"text_prompts": [f"p{n}" for n in range(16)]}, tuple(f"p{n}" for n in range(16))),
        ({"text_prompts": ["p"] * 16}, ("p",)),
        ({"text_prompts": ["dog", "cat", "dog\n", " cat", "\u201cdog\u201d"]}, ("dog", "cat")),
        ({"text_prompt": "cat\n"}, ("cat",)),
        ({"text_prompt": "cat", "text_prompts": None, "project_id": None}, ("cat",)),
        ({"text_prompt": "🐈‍⬛ 고양이", "later": 1}, ("🐈‍⬛ 고양이",)),
    ],
)
def test_one_prompt_or_several(body, prompts):
    assert edge.SegmentRequest.model_validate({"image_url": IMAGE, **body}).prompts == prompts


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"text_prompt": None}, ""),
        ({"text_prompt": "a", "text_prompts": ["a"]}, ""),
        ({"text_prompt": ""}, "text_prompt"),
        ({"text_prompt": 5}, "text_prompt"),
        ({"text_prompt": ["cat"]}, "text_prompt"),
        ({"text_prompts": []}, "text_prompts"),
        ({"text_prompts": "cat"}, "text_prompts"),
        ({"text_prompts": ["p"] * 17}, "text_prompts"),
        ({"text_prompts": ["a", "b\0"]}, "text_prompts.1"),
        ({"text_prompts": ["a", " \n"]}, "text_prompts.1"),
        ({"text_prompt": "a", "project_id": "x"}, "project_id"),
        ({"text_prompt": "a", "image_url": 1}, "image_url"),
        ({"text_prompt": "a", "image_url": None}, "image_url"),
        ({"text_prompt": "a", "image_url": "h" * 2049}, "image_url"),
    ],
)
def test_a_bad_segment_request_is_refused_naming_the_field(body, field):
    with pytest.raises(ValidationError) as refused:
        edge.SegmentRequest.model_validate({"image_url": IMAGE, **body})
    said = explain(refused.value)
    assert said.startswith(f"{field}: ") if field else "text_prompt or text_prompts" in said


POINT = {"points": [[1, 2]]}


@pytest.mark.parametrize(
    ("clicks", "prompts"),
    [
        ([POINT], ("point 1,2",)),
        ([POINT, {"points": [[1, 2]], "labels": [1]}, {"box": [1, 2, 3, 4.5]}], ("point 1,2", "box 1,2,3,4.5")),
        ([{"points": [[1, 2], [3, 4]], "labels": [1, 0], "box": None}], ("point 1,2; not 3,4",)),
        ([{"points": [[n, 2]]} for n in range(16)], tuple(f"point {n},2" for n in range(16))),
    ],
)
def test_clicks_instead_of_words(clicks, prompts):
    request = edge.SegmentRequest.model_validate({"image_url": IMAGE, "clicks": clicks})
    assert request.prompts == prompts
    assert [one.text() for one in clicks_of(request.visual)] == list(prompts)
    assert edge.SegmentRequest.model_validate({"image_url": IMAGE, "text_prompt": "cat"}).visual is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"clicks": [POINT], "text_prompt": "cat"}, "or clicks"),
        ({"clicks": []}, "clicks: "),
        ({"clicks": [{}]}, "clicks.0: there is neither a point nor a box"),
        ({"clicks": [POINT] * 17}, "clicks: "),
        ({"clicks": [{"points": [[1, 2]] * 65}]}, "clicks.0.points: "),
        ({"clicks": [{"points": [[1]]}]}, "clicks.0.points.0."),
        ({"clicks": [{"points": [[1, "nan"]]}]}, "clicks.0.points.0.1: "),
        ({"clicks": [{"points": [[1, 2]], "labels": [2]}]}, "clicks.0.labels.0: "),
        ({"clicks": [{"points": [[1, 2]], "labels": [1, 1]}]}, "clicks.0: each point needs a label"),
        ({"clicks": [{"box": [3, 2, 1, 4]}]}, "clicks.0: a box is x1, y1, x2, y2"),
    ],
)
def test_bad_clicks_are_refused_naming_the_field(body, says):
    with pytest.raises(ValidationError) as refused:
        edge.SegmentRequest.model_validate({"image_url": IMAGE, **body})
    assert says in explain(refused.value)


@pytest.mark.parametrize("tile", [32, 500.0, 100_000, "auto"])
def test_tiles_for_words(tile):
    body = {"image_url": IMAGE, "text_prompts": ["cat", "dog"], "tile": tile}
    request = edge.SegmentRequest.model_validate_json(json.dumps(body))
    assert (request.prompts, tile_of(request.visual)) == (("cat", "dog"), tile)
    assert edge.SegmentRequest.model_validate(body | {"tile": None}).visual is None


@pytest.mark.parametrize("tile", [31, -1, 0, 100_001, 64.5, 1e300, "64", "all", True, [64], {"side": 64}])
def test_what_is_no_tile_is_refused(tile):
    with pytest.raises(ValidationError) as refused:
        edge.SegmentRequest.model_validate_json(json.dumps({"image_url": IMAGE, "text_prompt": "cat", "tile": tile}))
    assert explain(refused.value).startswith("tile: ")


@pytest.mark.parametrize("asked", [{"clicks": [POINT]}, {"concept_id": "6f1d7f4e-4a57-4f0e-8a5f-3d7a2f1f0c11"}])
def test_tiles_go_with_words_only(asked):
    with pytest.raises(ValidationError) as refused:
        edge.SegmentRequest.model_validate({"image_url": IMAGE, "tile": 400, **asked})
    assert "tile goes with text_prompt" in explain(refused.value)


def test_an_explanation_does_not_repeat_what_was_sent():
    with pytest.raises(ValidationError) as refused:
        edge.SegmentRequest.model_validate({"image_url": {"secret": 1}, "text_prompt": "a"})
    assert "secret" not in explain(refused.value)


PROMPT_PATTERN = re.compile(edge.SegmentRequest.model_json_schema()["properties"]["text_prompt"]["pattern"])


@pytest.mark.parametrize("prompt", ["x", "x" * 500, "é", "日本", "🐈\u200d⬛", "'; --", "<b>"])
def test_what_can_be_a_prompt(prompt):
    assert check_prompt(prompt) == prompt
    assert PROMPT_PATTERN.search(prompt)


@pytest.mark.parametrize(
    ("typed", "prompt"),
    [
        ("  padded  ", "padded"),
        ("a\nb", "a b"),
        ("\tb", "b"),
        ("a\x85", "a"),
        ("a\u2028b", "a b"),
        ("a\u202eb", "ab"),
        ("\u2066a", "a"),
        ("x" * 500 + "\n" * 500, "x" * 500),
    ],
)
def test_a_prompt_gets_its_normal_form(typed, prompt):
    assert check_prompt(typed) == prompt
    assert PROMPT_PATTERN.search(typed)


@given(
    st.text(
        st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n\u200b\u200d\u00ad\u3164\x07.\"'")),
        max_size=30,
    )
)
def test_the_schema_accepts_the_same_prompts_as_the_service(text):
    try:
        check_prompt(text)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == (PROMPT_PATTERN.search(text) is not None)


@pytest.mark.parametrize(
    "prompt",
    ["", " ", "\u3000", "\n", "\u200b", "x" * 501, "x" + " " * 2000, "a\0b", "a\x1b[2J", "a\x7f", "a\x80", "\ud800"],
)
def test_what_cannot_be_a_prompt(prompt):
    with pytest.raises(ValueError, match="prompt"):
        check_prompt(prompt)


@pytest.mark.parametrize(
    "query",
    [{"page": "0"}, {"page": "-1"}, {"page": "x"}, {"limit": "0"}, {"limit": "101"}, {"limit": "1.5"}],
)
def test_a_bad_page_is_refused(query):
    with pytest.raises(ValidationError):
        edge.ResultsQuery.model_validate(query)


@pytest.mark.parametrize("blank", ["", " ", None])
def test_a_blank_project_is_no_project(blank):
    assert edge.UploadRequest.model_validate({"project_id": blank}).project_id is None
    assert edge.ResultsQuery.model_validate({"project_id": blank}).project_id is None
    body = {"image_url": IMAGE, "text_prompt": "a", "project_id": blank}
    assert edge.SegmentRequest.model_validate(body).project_id is None


def test_a_page_has_defaults():
    query = edge.ResultsQuery.model_validate({})
    assert (query.page, query.limit) == (1, 20)
    assert edge.ResultsQuery.model_validate({"page": "3", "limit": "100"}).limit == 100


def test_a_uuid_is_made_canonical():
    query = edge.ResultsQuery.model_validate({"project_id": "0B6F1B5E-3A0B-4D57-9F0E-1A2B3C4D5E6F"})
    assert query.project_id == "0b6f1b5e-3a0b-4d57-9f0e-1a2b3c4d5e6f"


@pytest.mark.parametrize("name", ["", " ", "x" * 121, "a\nb", None])
def test_a_bad_project_name_is_refused(name):
    with pytest.raises(ValidationError):
        ProjectRequest.model_validate({"name": name})


def test_every_model_says_what_it_is_for():
    for module in (edge, gpu, envelope):
        for model in vars(module).values():
            if isinstance(model, type) and issubclass(model, BaseModel):
                assert model.__doc__, model
