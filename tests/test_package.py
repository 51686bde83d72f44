"""What importing s3seg costs, and what it offers."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import s3seg

HEAVY = ("torch", "numpy", "PIL", "transformers", "pandas", "boto3", "supabase", "starlette", "huggingface_hub")


def test_every_public_name_is_there():
    for name in s3seg.__all__:
        assert getattr(s3seg, name) is not None
    assert set(s3seg.__all__) <= set(dir(s3seg))


def test_no_public_name_is_a_module_that_would_take_its_place_once_imported() -> None:
    modules = {module.name for module in pkgutil.iter_modules(s3seg.__path__)}
    assert not modules & set(s3seg.__all__)


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="segmentor"):
        _ = s3seg.segmentor


def test_importing_s3seg_imports_nothing_heavy():
    code = f"import sys, s3seg; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
