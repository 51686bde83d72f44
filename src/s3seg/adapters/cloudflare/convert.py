"""Python values as JavaScript's."""

from __future__ import annotations

from typing import Any

from js import Object  # pyright: ignore[reportMissingImports]
from pyodide.ffi import jsnull, to_js  # pyright: ignore[reportMissingImports]


def js_object(fields: dict[str, Any]) -> Any:
    """Return a dictionary as a plain JavaScript object, and what is inside likewise."""
    return to_js(fields, dict_converter=Object.fromEntries)


def js_bytes(data: bytes) -> Any:
    """Return bytes as a ``Uint8Array``, copied in one piece."""
    return to_js(data)


def is_nothing(value: Any) -> bool:
    """Return whether a value is JavaScript's null or undefined; objects whose ``size`` is 0 are falsy in Python too."""
    return value is None or value is jsnull
