"""Icons and runs for the tests of the training example: nothing is fetched, and nothing is rendered."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from train_small_sam3 import icon_pack
from train_small_sam3.concepts import Vocabulary, load_vocabulary
from train_small_sam3.icons import PACK, IconAtlas, fingerprint, load_atlas
from train_small_sam3.settings import TINY
from train_small_sam3.state import start
from train_small_sam3.train import train


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return load_vocabulary()


@pytest.fixture(scope="session")
def icon_cache(tmp_path_factory, vocabulary) -> Path:
    """A cache folder with a pack of icons: a disc of its own colour for each emoji, in three styles."""
    folder = tmp_path_factory.mktemp("icons")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    disc = ((x - 15.5) ** 2 + (y - 15.5) ** 2 < 15**2).astype(np.uint8)[..., None]
    drawings = []
    for icon in sorted({icon for concept in vocabulary.concepts for icon in concept.icons}):
        pixels = np.concatenate([disc * rng.integers(0, 256, 3, dtype=np.uint8), disc * 255], axis=2)
        drawings += [(icon, style, pixels, True) for style in ("noto", "twemoji", "openmoji")]
    icon_pack.write(folder / PACK, drawings, made_for=fingerprint(vocabulary))
    return folder


@pytest.fixture(scope="session")
def atlas(vocabulary, icon_cache) -> IconAtlas:
    return load_atlas(vocabulary, icon_cache)


@pytest.fixture(autouse=True)
def _no_other_icons(icon_cache, monkeypatch) -> None:
    monkeypatch.setenv("S3SEG_TRAIN_CACHE", str(icon_cache))  # for those that look for the icons themselves


@pytest.fixture(scope="session")
def new_run(tmp_path_factory, vocabulary, atlas) -> Path:
    """A run that has made no step yet; it is only read."""
    folder = tmp_path_factory.mktemp("new") / "run"
    start(folder, TINY, vocabulary, atlas, None)
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, new_run, icon_cache) -> Path:
    """The same run after its last step; it is only read."""
    folder = shutil.copytree(new_run, tmp_path_factory.mktemp("finished") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3SEG_TRAIN_CACHE", str(icon_cache))
        train(folder, minutes=10)
    return folder


@pytest.fixture
def run(tmp_path, new_run) -> Path:
    """A run of one's own that has made no step yet."""
    return shutil.copytree(new_run, tmp_path / "run")
