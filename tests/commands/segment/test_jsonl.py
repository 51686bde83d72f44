from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from s3seg.commands.segment import jsonl

VALUES = st.lists(st.dictionaries(st.text(max_size=3), st.text() | st.integers() | st.none(), max_size=3), max_size=4)


@given(before=VALUES, cut=st.integers(0, 200), after=VALUES)
def test_a_file_that_was_cut_off_keeps_its_complete_lines_and_continues(
    before: list[dict[str, object]], cut: int, after: list[dict[str, object]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        jsonl.append(path, before)
        data = path.read_bytes()[: max(0, path.stat().st_size - cut)]
        path.write_bytes(data)
        whole = before[: data.count(b"\n")]
        assert [value for _, value in jsonl.read(path)] == whole
        jsonl.append(path, after)
        found = [value for _, value in jsonl.read(path)]
    # A line that lacked nothing but its end is whole again once it has one.
    assert found in (whole + after, before[: len(whole) + 1] + after)


@given(st.text(st.characters(codec=None)))
def test_every_possible_file_name_round_trips(name: str) -> None:
    line = jsonl.encode({"source": name})
    assert json.loads(line.encode()) == {"source": name}
    assert line.count("\n") == 1
