"""What the README and the how-to guides show is run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_and_draws_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]  # the next one needs a service
    exec(compile(code, "README.md", "exec"), {})
    assert "(640, 800)" in capsys.readouterr().out
    drawn = np.asarray(Image.open(tmp_path / "cars.png").convert("RGB"), np.int16)
    plain = np.asarray(Image.open(ROOT / "examples" / "pictures" / "street.png").convert("RGB"), np.int16)
    assert 0.01 < (np.abs(drawn - plain).max(-1) > 8).mean() < 0.5


def test_the_guide_to_results_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    page = (ROOT / "docs" / "how-to" / "results.md").read_text(encoding="utf-8")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "results.md", "exec"), names)
    assert 0 < len(names["sure"]) < len(names["cars"]) < len(names["more"])
    assert len(names["detections"]) == len(names["outlines"]) == len(names["cars"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "examples",
        "cars.png",
        "both.png",
        "cars.json",
        "again.png",
        "coco.json",
    }


@pytest.mark.parametrize("page", sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")]), ids=lambda p: p.stem)
def test_every_link_to_a_file_of_ours_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
