from __future__ import annotations

import pytest

from s3seg.checkpoints import resolve
from s3seg.checkpoints.metadata import REFERENCE_THRESHOLD, CheckpointMetadata
from s3seg.errors import CheckpointError


def test_the_embedded_checkpoint_has_metadata():
    metadata = CheckpointMetadata.from_folder(resolve("embedded").folder)
    assert metadata.name == "s3seg-embedded"
    assert metadata.vocabulary is not None
    assert "two" not in metadata.vocabulary
    assert "red circles" in metadata.vocabulary
    assert 0 < metadata.threshold < 1
    assert metadata.drawings_only


def test_a_checkpoint_without_metadata_has_the_defaults_of_the_reference(tmp_path):
    assert CheckpointMetadata.from_folder(tmp_path) == CheckpointMetadata()
    (tmp_path / "config.json").write_text("{}")
    assert CheckpointMetadata.from_folder(tmp_path).threshold == REFERENCE_THRESHOLD


@pytest.mark.parametrize("section", ['{"threshold": "high"}', '{"vocabulary": 7}', '"text"'])
def test_malformed_metadata_is_an_error_that_names_its_file(tmp_path, section):
    (tmp_path / "config.json").write_text(f'{{"s3seg": {section}}}')
    with pytest.raises(CheckpointError, match=r"config\.json"):
        CheckpointMetadata.from_folder(tmp_path)
