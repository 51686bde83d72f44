"""What the command says of photographs, which the embedded checkpoint does not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands.running import Command, GetPicture
from tests.helpers.pictures import photograph

REMEDY = "s3seg models pull litetext (0.5 B parameters, no account needed)"


def hints(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("hint: ")]


@pytest.mark.parametrize("threshold", ["0", "0.9"])
def test_on_a_photograph_one_line_says_what_to_do_whether_something_is_found_or_not(
    s3seg: Command, threshold: str
) -> None:
    done = s3seg("segment", photograph("chelsea.png"), "cat", "--threshold", threshold, "--quiet")
    assert done.exit_code == 0
    (hint,) = hints(done.stderr)
    assert hint.startswith("hint: this looks like a photograph, but the s3seg-embedded checkpoint knows drawings only")
    assert hint.endswith(REMEDY)
    assert ("not found" in done.stdout) == (threshold == "0.9")


def test_in_a_folder_it_is_said_once_and_names_the_photographs(
    s3seg: Command, tmp_path: Path, picture: GetPicture
) -> None:
    for path in (photograph("chelsea.png"), photograph("coffee.png"), picture("street")):
        shutil.copy(path, tmp_path)
    done = s3seg("segment", tmp_path, "cat", "-p", "dog", "--jsonl")
    (hint,) = hints(done.stderr)
    assert hint.startswith(
        f"hint: {tmp_path / 'chelsea.png'}, {tmp_path / 'coffee.png'}: this looks like a photograph, but"
    )
    kinds = {
        Path(one["source"]).name: [hint["kind"] for hint in one["hints"]]
        for one in map(json.loads, done.stdout.splitlines())
    }
    assert kinds == {"chelsea.png": ["photograph"], "coffee.png": ["photograph"], "street.png": []}


def test_a_drawing_gets_no_hint(s3seg: Command, picture: GetPicture) -> None:
    assert hints(s3seg("segment", picture("street"), "car").stderr) == []
