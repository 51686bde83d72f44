import pytest
from s3seg_zip import ZipObjectStore, from_settings

from s3seg.app import Parts
from s3seg.app.settings import Settings
from s3seg.testing import ObjectStoreSuite


class TestZipObjectStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return ZipObjectStore(tmp_path / "objects.zip", public_base="https://objects.example/files")


def test_a_setting_selects_the_adapter(tmp_path):
    parts = Parts(Settings(data_dir=tmp_path, object_store="s3seg_zip:from_settings"))
    assert isinstance(parts.objects, ZipObjectStore)
    assert isinstance(from_settings(parts.settings), ZipObjectStore)
