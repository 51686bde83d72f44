import pytest

from s3seg.adapters.files import FileObjectStore
from s3seg.testing import ObjectStoreSuite


class TestFileObjectStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path):
        return FileObjectStore(tmp_path / "objects", public_base="https://objects.example/files")
