"""Many pictures on Ray Data, exactly once each: ``s3seg.bulk("s3://bucket/photos", "s3://bucket/found", ["cat"])``.

This package can be called: ``s3seg.bulk(...)`` is `s3seg.bulk.api.bulk`. Importing a subpackage sets the attribute
``s3seg.bulk`` to the package, so a function of that name beside it would be replaced; see ADR 71. The documented way of
Python to make a module callable is a class for it.

Needs ``pip install 's3seg[bulk]'``. Importing this package alone imports neither ray nor pyarrow.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3seg.bulk.api import bulk
    from s3seg.bulk.segmenting import Segment
    from s3seg.bulk.storage import S3Access

_NAMES = {"S3Access": "storage", "Segment": "segmenting", "bulk": "api"}

__all__ = ["S3Access", "Segment", "bulk"]


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.bulk(*args, **kwargs)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _NAMES:
        raise AttributeError(f"module 's3seg.bulk' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"s3seg.bulk.{_NAMES[name]}"), name)
    except ModuleNotFoundError as err:
        if err.name in ("ray", "pyarrow"):
            from s3seg.errors import ConfigurationError

            raise ConfigurationError(f"many pictures need {err.name}: pip install 's3seg[bulk]'") from err
        raise
    globals()[name] = value
    return value


sys.modules[__name__].__class__ = _CallableModule
