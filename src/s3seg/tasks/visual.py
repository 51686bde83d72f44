"""What a task asks for beside words, as the JSON that the task stores keep.

A task store keeps it unread: it comes from users, who may also write to a database directly, so that only the worker
that processes the task reads it, and a malformed one ends that task and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3seg.errors import InvalidRequestError
from s3seg.tasks.clicks import Clicks
from s3seg.tasks.concepts import ConceptDefinition
from s3seg.tasks.records import Concept
from s3seg.tasks.tiles import Tile, checked_tile_of_service


def visual_of_clicks(objects: Sequence[Clicks]) -> dict[str, Any]:
    """Return what a task stores that asks for the masks of these objects."""
    return {"clicks": [one.to_dict() for one in objects]}


def visual_of_concept(concept: Concept) -> dict[str, Any]:
    """Return what a task stores that looks for a concept: all of it, so that the concept may be deleted meanwhile."""
    return {"concept": {"id": concept.concept_id, **concept.definition}}


def visual_of_tiles(tile: Tile) -> dict[str, Any]:
    """Return what a task stores that looks for its prompts in tiles too."""
    return {"tile": tile}


def has_tiles(visual: Mapping[str, Any] | None) -> bool:
    """Return whether a task asks for tiles, perhaps malformed ones, and so takes longer than others."""
    return visual is not None and "tile" in visual


def tile_of(visual: Mapping[str, Any] | None) -> Tile | None:
    """Return the tiles that a task asks for, or None.

    Raises:
        InvalidRequestError: They are malformed.
    """
    if visual is None or "tile" not in visual:
        return None
    tile = checked_tile_of_service(visual["tile"])
    if tile is None or len(visual) > 1:
        raise InvalidRequestError("the tiles of the task are malformed")
    return tile


def concept_of(visual: Mapping[str, Any] | None) -> ConceptDefinition | None:
    """Return the concept that a task looks for, or None.

    Raises:
        InvalidRequestError: It is malformed.
    """
    if visual is None or "concept" not in visual:
        return None
    return ConceptDefinition.from_dict(visual["concept"])


def clicks_of(visual: Mapping[str, Any] | None) -> tuple[Clicks, ...]:
    """Return the objects that a task asks for; none for a task of words.

    Raises:
        InvalidRequestError: They are malformed.
    """
    if visual is None or "clicks" not in visual:
        return ()
    try:
        return tuple(Clicks.from_dict(one) for one in visual["clicks"])
    except (KeyError, TypeError, AttributeError) as err:
        raise InvalidRequestError("the clicks of the task are malformed") from err
