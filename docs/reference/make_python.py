"""Make python.md from the docstrings: ``python docs/reference/make_python.py > docs/reference/python.md``."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
from griffe2md import ConfigDict, render_object_docs

SOURCE = Path(__file__).parents[2] / "src"
CHAPTERS = {
    "Segmenting": (
        "inference.segmenter.Segmenter",
        "inference.embedding.Embedding",
        "tasks.clicks.Clicks",
        "inference.concepts.Concept",
        "images.LoadedImage",
        "images.video",
    ),
    "Results": ("results.segmentation.Segmentation", "results.instance.Instance", "results.model_info.ModelInfo"),
    "Many pictures": ("bulk.api.bulk", "bulk.segmenting.Segment", "bulk.storage.S3Access"),
    "Services": ("app.services.local", "app.in_process.Local", "client.Client", "client.AsyncClient"),
    "Errors": ("errors",),
    "Masks": ("results.masks",),
    "Formats and drawings": (
        "results.export",
        "results.tables",
        "results.coco",
        "results.yolo_dataset",
        "results.draw",
        "results.overlay_style.OverlayStyle",
        "results.simplify",
        "results.combine",
    ),
    "Calibration": ("inference.calibration",),
    "GeoTIFF": (
        "integrations.geotiff.segmenting.segment_geotiff",
        "integrations.geotiff.result.GeoSegmentation",
        "integrations.geotiff.result.geojson",
        "integrations.geotiff.raster.Raster",
    ),
}
LOOK: ConfigDict = {
    "heading_level": 3,
    "members_order": "source",
    "filters": ["!^_"],
    "show_root_heading": True,
    "show_root_full_path": False,
    "show_object_full_path": False,
    "show_signature_annotations": True,
    "show_if_no_docstring": False,
    "group_by_category": False,
    "docstring_section_style": "list",
    "summary": False,
}


def page() -> str:
    """A chapter for each kind of name, in the order in which people meet them."""
    package = griffe.load("s3seg", search_paths=[SOURCE], docstring_parser="google")
    chapters = [
        f"## {title}\n\n" + "\n\n".join(_as_page(render_object_docs(package[name], LOOK)) for name in names)
        for title, names in CHAPTERS.items()
    ]
    return (
        "# Python\n\n"
        "From the docstrings, by `docs/reference/make_python.py`; `help(s3seg.Segmenter)` says the same.\n"
        "`s3seg` itself has `Segmenter`, results, clients, `local` and the errors of pictures, prompts, masks and\n"
        "checkpoints; the rest is in the module that its heading names, such as `s3seg.results.masks`.\n\n"
        + "\n\n".join(chapters)
        + "\n"
    )


def _as_page(rendered: str) -> str:
    """Without links to what is not on the page, and with the docstrings' marks as Markdown has them."""
    text = re.sub(r"\[([^\[\]]+)\]\(#[^)]*\)", r"\1", rendered)
    text = re.sub(r"^(#+) `s3seg\.(?:\w+\.)*?(\w+\.\w+)`$", r"\1 `\2`", text, flags=re.MULTILINE)
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = text.replace("<code>", "`").replace("</code>", "`")
    text = re.sub(r"``+([^`\n]+)``+", r"`\1`", text)
    text = re.sub(r"(?<=^```python\n).{101,}(?=\n```$)", lambda found: _in_lines(found[0]), text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _in_lines(signature: str) -> str:
    """A signature with a line for each parameter."""
    name, _, rest = signature.partition("(")
    parameters, depth = [""], 1
    parts = iter(re.findall(r"'[^']*'|.", rest))  # a string is one part, whatever is in it
    for part in parts:
        depth += (part in "([{") - (part in ")]}")
        if depth == 0:
            break
        if part == "," and depth == 1:
            parameters.append("")
        else:
            parameters[-1] += part
    return f"{name}(\n" + "".join(f"    {each.strip()},\n" for each in parameters) + f"){''.join(parts)}"


if __name__ == "__main__":
    print(page(), end="")
