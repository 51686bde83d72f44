"""Which requests are the same, and so may continue each other's runs."""

from __future__ import annotations

import shutil

import pytest

from s3seg import checkpoints
from s3seg.bulk.request import BulkRequest, digest_of_weights
from s3seg.errors import CheckpointError, CheckpointNotFoundError, InvalidRequestError, PromptError
from tests.bulk.pretend import request_for


def test_a_request_has_the_same_key_when_it_is_made_again_or_read_back():
    request = request_for("cat", "dog", threshold=0.5)
    assert request.key("/p") == request_for(" cat ", "dog", "cat", threshold=0.5).key("/p")
    assert BulkRequest.from_dict(request.to_dict()) == request


@pytest.mark.parametrize(
    "other",
    [
        {"prompts": ("cat",)},
        {"threshold": 0.5},
        {"max_instances": 3},
        {"dtype": "bfloat16"},
        {"image_size": 504},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_results_depend_on_changes_the_key(other):
    changed = {"prompts": ("cat", "dog"), **other}
    assert request_for(*changed.pop("prompts"), **changed).key("/p") != request_for().key("/p")


def test_another_input_changes_the_key():
    assert request_for().key("/p") != request_for().key("/q")


def test_other_weights_change_the_key_wherever_they_differ(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(checkpoints.resolve("embedded").path, folder)
    weights = folder / "model.safetensors"
    before = digest_of_weights(checkpoints.resolve(str(folder)))
    content = bytearray(weights.read_bytes())
    for start in range(len(content) // 2, len(content) // 2 + len(content) // 16):  # as a little training would do
        content[start] ^= 1
    weights.write_bytes(content)
    assert digest_of_weights(checkpoints.resolve(str(folder))) != before


def test_a_machine_with_other_weights_under_the_same_name_does_not_take_part():
    request = request_for()
    values = request.to_dict() | {"weights": "0123456789abcdef"}
    assert request.find_checkpoint().name == "embedded"
    with pytest.raises(CheckpointError, match="not the one that the run was started with"):
        BulkRequest.from_dict(values).find_checkpoint()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompts": []}, PromptError),
        ({"prompts": ["cat", "  "]}, PromptError),
        ({"prompts": [3]}, PromptError),
        ({"prompts": "cat", "threshold": 2}, InvalidRequestError),
        ({"prompts": "cat", "max_instances": 0}, InvalidRequestError),
        ({"prompts": "cat", "checkpoint": "nowhere/nothing"}, CheckpointNotFoundError),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_started(arguments, error):
    with pytest.raises(error):
        BulkRequest.make(**arguments)
