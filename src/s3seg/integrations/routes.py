"""The routes of other tools, by the names with which they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from s3seg.errors import ConfigurationError
from s3seg.integrations.door import Door
from s3seg.web.operations import Operation


def _openai(door: Door) -> Sequence[Operation]:
    from s3seg.integrations.openai_route import OpenAiRoutes

    return OpenAiRoutes(door).operations()


def _roboflow(door: Door) -> Sequence[Operation]:
    from s3seg.integrations.roboflow import RoboflowRoutes

    return RoboflowRoutes(door).operations()


def _x_anylabeling(door: Door) -> Sequence[Operation]:
    from s3seg.integrations.x_anylabeling import XAnyLabelingRoutes

    return XAnyLabelingRoutes(door).operations()


_ROUTES: dict[str, Callable[[Door], Sequence[Operation]]] = {
    "openai": _openai,
    "roboflow": _roboflow,
    "x-anylabeling": _x_anylabeling,
}


def check_names(names: Iterable[str]) -> None:
    """Raise ConfigurationError if a name is not that of a tool."""
    for name in names:
        if name not in _ROUTES:
            raise ConfigurationError(f"there is no integration {name!r:.60}; choose from {', '.join(_ROUTES)}")


def operations(names: Iterable[str], door: Door) -> list[Operation]:
    """Return the operations of the named tools.

    Args:
        names: Names that `check_names` accepts.
        door: What the routes share.
    """
    return [operation for name in dict.fromkeys(names) for operation in _ROUTES[name](door)]
