from __future__ import annotations

import pytest

from s3seg.checkpoints import resolve
from s3seg.checkpoints.metadata import REFERENCE_THRESHOLD, CheckpointMetadata
from s3seg.errors import CheckpointError


def test_the_embedded_checkpoint_says_what_it_is():
    card = CheckpointMetadata.from_folder(resolve("embedded").folder)
    assert card.name == "s3seg-embedded"
    assert card.vocabulary is not None
    assert "two" not in card.vocabulary
    assert "red circles" in card.vocabulary
    assert 0 < card.threshold < 1


def test_a_checkpoint_without_a_card_has_the_defaults_of_the_reference(tmp_path):
    assert CheckpointMetadata.from_folder(tmp_path) == CheckpointMetadata()
    (tmp_path / "config.json").write_text("{}")
    assert CheckpointMetadata.from_folder(tmp_path).threshold == REFERENCE_THRESHOLD


@pytest.mark.parametrize("section", ['{"threshold": "high"}', '{"vocabulary": 7}', '"text"'])
def test_a_card_that_makes_no_sense_names_its_file(tmp_path, section):
    (tmp_path / "config.json").write_text(f'{{"s3seg": {section}}}')
    with pytest.raises(CheckpointError, match=r"config\.json"):
        CheckpointMetadata.from_folder(tmp_path)
