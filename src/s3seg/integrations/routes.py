"""The routes of other tools, by the names with which they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from s3seg.errors import ConfigurationError
from s3seg.integrations.door import Door
from s3seg.web.operations import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """What single tools need.

    Attributes:
        label_studio_url: Address of the Label Studio whose pictures are read.
        label_studio_api_key: An access token of one of its users.
    """

    label_studio_url: str | None = None
    label_studio_api_key: SecretStr | None = None


def _openai(door: Door, options: ToolOptions) -> Sequence[Operation]:
    from s3seg.integrations.openai_route import OpenAiRoutes

    return OpenAiRoutes(door).operations()


def _roboflow(door: Door, options: ToolOptions) -> Sequence[Operation]:
    from s3seg.integrations.roboflow import RoboflowRoutes

    return RoboflowRoutes(door).operations()


def _x_anylabeling(door: Door, options: ToolOptions) -> Sequence[Operation]:
    from s3seg.integrations.x_anylabeling import XAnyLabelingRoutes

    return XAnyLabelingRoutes(door).operations()


def _label_studio(door: Door, options: ToolOptions) -> Sequence[Operation]:
    from s3seg.integrations.label_studio import LabelStudioRoutes
    from s3seg.integrations.label_studio_files import LabelStudioFiles

    url, key = options.label_studio_url, options.label_studio_api_key
    if url is None or key is None:
        raise ConfigurationError(
            "--with label-studio needs S3SEG_LABEL_STUDIO_URL, the address of Label Studio, and "
            "S3SEG_LABEL_STUDIO_API_KEY, an access token from its account page, to read the pictures of tasks"
        )
    return LabelStudioRoutes(door, LabelStudioFiles(url, key)).operations()


_ROUTES: dict[str, Callable[[Door, ToolOptions], Sequence[Operation]]] = {
    "openai": _openai,
    "roboflow": _roboflow,
    "x-anylabeling": _x_anylabeling,
    "label-studio": _label_studio,
}


def check_names(names: Iterable[str]) -> None:
    """Raise ConfigurationError if a name is not that of a tool."""
    for name in names:
        if name not in _ROUTES:
            raise ConfigurationError(f"there is no integration {name!r:.60}; choose from {', '.join(_ROUTES)}")


def operations(names: Iterable[str], door: Door, options: ToolOptions | None = None) -> list[Operation]:
    """Return the operations of the named tools.

    Args:
        names: Names that `check_names` accepts.
        door: What the routes share.
        options: What single tools need.

    Raises:
        ConfigurationError: A tool needs an option that is not there.
    """
    given = options or ToolOptions()
    return [operation for name in dict.fromkeys(names) for operation in _ROUTES[name](door, given)]
