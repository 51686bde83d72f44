"""An estimate is arithmetic on a sample that is drawn evenly."""

from __future__ import annotations

import pytest

from s3seg.bulk.estimate import Estimate, estimate
from s3seg.bulk.listing import list_pictures
from s3seg.bulk.storage import S3Access
from s3seg.errors import InvalidRequestError
from tests.bulk.pretend import CORRUPT, PretendNetwork, make_pictures, request_for


def run(folder, network, sample):
    return estimate(
        list_pictures(str(folder), S3Access()), request_for(), lambda: network, s3=S3Access(), sample=sample
    )


def test_a_sample_is_segmented_and_all_pictures_are_counted(tmp_path):
    network = PretendNetwork()
    found = run(make_pictures(tmp_path / "p", 300, dict.fromkeys(range(0, 300, 2), CORRUPT)), network, 60)
    assert (found.pictures, found.sampled) == (300, 60)
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "p").iterdir())
    assert len(set(network.read)) == 60
    numbers = sorted(int(name[:3]) for name in set(network.read))
    assert 75 < sum(numbers) / 60 < 225, "from the whole input, not from its beginning"
    assert 15 < found.failed < 45
    assert found.memory is None or found.memory > 10**7


def test_a_small_input_is_its_own_sample(tmp_path):
    found = run(make_pictures(tmp_path / "p", 7), PretendNetwork(), 200)
    assert (found.pictures, found.sampled, found.failed) == (7, 7, 0)


def test_hours_and_sizes_are_those_of_the_sample_times_the_pictures():
    found = Estimate(pictures=1_000_000, bytes=0, sampled=200, failed=0, seconds=10.0, memory=None, output=400_000)
    assert found.process_hours == pytest.approx(1_000_000 * 0.05 / 3600)
    assert found.output_bytes == pytest.approx(2e9)


def test_an_input_without_pictures_is_told(tmp_path):
    with pytest.raises(InvalidRequestError, match="no picture"):
        estimate(iter(()), request_for(), PretendNetwork, s3=S3Access())
