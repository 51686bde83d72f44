"""Make a project in Label Studio: its pictures, and masks of what you name, for people to correct.

    export LABEL_STUDIO_URL=http://localhost:8080 LABEL_STUDIO_TOKEN=...   # a personal access token of your account
    python examples/label_studio/make_project.py examples/pictures "trees and clouds" tree cloud

Masks are found here and sent as predictions. To have them found while people label, connect the gpu service instead:
``docs/how-to/label-studio.md``.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import httpx

import s3seg
from s3seg.errors import S3segError
from s3seg.results.brush_rle import encode_brush

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a project in Label Studio from a folder of pictures.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("title")
    parser.add_argument("prompts", nargs="+", help="what to look for; these are the labels")
    arguments = parser.parse_args()
    pictures = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    segmenter = s3seg.Segmenter()
    with httpx.Client(base_url=os.environ["LABEL_STUDIO_URL"], timeout=60) as api:
        api.headers["Authorization"] = authorization(api, os.environ["LABEL_STUDIO_TOKEN"])
        project = ask(api, "/api/projects", {"title": arguments.title, "label_config": interface(arguments.prompts)})
        for path, results in segmenter.segment_many(pictures, arguments.prompts):
            with path.open("rb") as file:
                sent = api.post(
                    f"/api/projects/{project['id']}/import?return_task_ids=true", files={"file": (path.name, file)}
                )
            (task,) = checked(sent)["task_ids"]
            prediction = {"task": task, "model_version": results[0].model.name, "result": regions(results)}
            ask(api, "/api/predictions", prediction)
            print(f"{path.name}: {sum(map(len, results))} masks")
    print(f"{os.environ['LABEL_STUDIO_URL']}/projects/{project['id']}")


def interface(prompts: Sequence[str]) -> str:
    """The labelling interface of the project: a brush for each prompt."""
    labels = "".join(f"<Label value={quoteattr(prompt)}/>" for prompt in prompts)
    brushes = f'<BrushLabels name="tag" toName="image">{labels}</BrushLabels>'
    return f'<View><Image name="image" value="$image"/>{brushes}</View>'


def regions(results: Sequence[s3seg.Segmentation]) -> list[dict[str, Any]]:
    """The instances of one picture, as Label Studio stores brush strokes."""
    return [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": "tag",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": instance.rle.size[1],
            "original_height": instance.rle.size[0],
            "image_rotation": 0,
            "score": instance.score,
            "value": {"format": "rle", "rle": encode_brush(instance.mask), "brushlabels": [result.prompt]},
        }
        for result in results
        for instance in result
    ]


def authorization(api: httpx.Client, token: str) -> str:
    """The header of requests. A personal access token is exchanged for one that is valid for minutes."""
    if token.count(".") != 2:  # a legacy token
        return f"Token {token}"
    return f"Bearer {ask(api, '/api/token/refresh/', {'refresh': token})['access']}"


def ask(api: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return checked(api.post(path, json=body))


def checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        sys.exit(f"Label Studio answered {answer.status_code}: {answer.text[:500]}")
    return answer.json()


if __name__ == "__main__":
    try:
        main()
    except S3segError as error:
        sys.exit(f"{error.code}: {error}")
