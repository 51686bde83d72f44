"""The formats that ``--format`` takes; a file of its own, since the options need it and nothing else."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """How results are written for programs."""

    JSON = "json"
    JSONL = "jsonl"
    COCO = "coco"
    YOLO = "yolo"
    GEOJSON = "geojson"
    CSV = "csv"
