"""What importing s3seg costs, and what it offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import s3seg

HEAVY = ("torch", "numpy", "PIL", "transformers", "pandas", "boto3", "supabase", "starlette", "huggingface_hub")


def test_every_public_name_is_there():
    for name in s3seg.__all__:
        assert getattr(s3seg, name) is not None
    assert set(s3seg.__all__) <= set(dir(s3seg))


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="segmentor"):
        _ = s3seg.segmentor


def test_importing_s3seg_imports_nothing_heavy():
    code = f"import sys, s3seg; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
