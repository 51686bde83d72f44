"""A variable that is nearly a setting is told."""

from __future__ import annotations

import pytest

from s3seg.app import Parts
from s3seg.app.misspelt import warn_of_misspelt
from s3seg.app.settings import Settings


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("S3SEG_RATE_LIMIT", "S3SEG_RATE_LIMITS"),
        ("S3SEG_DATADIR", "S3SEG_DATA_DIR"),
        ("S3SEG_MAX_MEGAPIXEL", "S3SEG_MAX_MEGAPIXELS"),
        ("s3seg_public_base_uri", "S3SEG_PUBLIC_BASE_URL"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_told(variable, meant, caplog):
    warn_of_misspelt([variable])
    assert caplog.messages == [f"{variable} is not a setting and has no effect; did you mean {meant}?"]


def test_settings_and_variables_of_others_are_not_told(caplog):
    settings = [f"S3SEG_{name.upper()}" for name in Settings.model_fields]
    warn_of_misspelt([*settings, "s3seg_data_dir", "S3SEG_URL", "S3SEG_TOKEN", "S3SEG_MY_OWN_ADAPTER_KEY", "PATH"])
    assert caplog.messages == []


def test_a_service_tells_it_when_it_starts(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("S3SEG_RATE_LIMIT", "off")
    Parts(Settings(_env_file=None, data_dir=tmp_path / "data"))
    assert "did you mean S3SEG_RATE_LIMITS?" in caplog.text
    assert "=off" not in caplog.text
