"""The garbage collector pauses while PyTorch is imported, and is as it was afterwards."""

from __future__ import annotations

import gc
import importlib

import pytest

from s3seg.inference.quick_imports import collector_paused


@pytest.fixture(autouse=True)
def _enabled():
    yield
    gc.enable()


def test_it_is_paused_and_comes_back_even_if_an_import_fails():
    with pytest.raises(ModuleNotFoundError), collector_paused():
        importlib.import_module("no_such_module")
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_its_user_has_turned_off_stays_off():
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()
