"""The code that the README, the tutorial and the guides show is run; their links are followed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import s3seg
from tests.commands.running import command, process
from tests.docs.belongings import write_video
from tests.helpers.processes import Process, free_port, wait_for

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def code_blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The working folder, with the examples of a clone in it."""
    monkeypatch.setenv("S3SEG_CHECKPOINT", "embedded")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors that forges give to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"examples"}


def test_the_first_example_of_the_readme_runs_and_draws_a_picture(clone, capsys):
    exec(compile(code_blocks("README.md", "python")[0], "README.md", "exec"), {})  # the next one needs a service
    assert capsys.readouterr().out.count("(640, 800)") == 2  # two trees
    drawn = np.asarray(Image.open(clone / "trees.png").convert("RGB"), np.int16)
    plain = np.asarray(Image.open(ROOT / "examples" / "pictures" / "park.png").convert("RGB"), np.int16)
    assert 0.01 < (np.abs(drawn - plain).max(-1) > 8).mean() < 0.5


def test_the_segment_commands_of_the_readme_run(clone):
    lines = [line for block in code_blocks("README.md", "sh") for line in block.splitlines()]
    segment = [line for line in lines if line.startswith("s3seg segment") and "--url" not in line]
    assert len(segment) == 3
    for line in segment:
        words = shlex.split(line.partition("> ")[0], comments=True)
        words = [str(path) for word in words for path in (sorted(Path().glob(word)) if "*" in word else [word])]
        done = command(*words[1:])
        assert done.exit_code == 0, done.output
        if "> " in line:
            assert len(done.stdout.splitlines()) == 4  # a line for each picture
    assert len([name for name in names_in(clone / "out") if name.endswith(".overlay.png")]) == 4


@pytest.mark.slow
def test_the_service_that_the_readme_starts_answers_the_calls_below_it(clone, monkeypatch):
    blocks = [block.strip() for block in code_blocks("README.md", "sh")]
    serve, segment = [block for block in blocks if block.startswith("s3seg serve") or "--url" in block]
    assert serve == "s3seg serve"
    port = str(free_port())
    settings = {"S3SEG_DATA_DIR": str(clone / "data"), "S3SEG_CHECKPOINT": "embedded"}
    service = Process(
        "from s3seg.cli import main; main()", "serve", "--port", port, "--print-token", log=clone / "log", **settings
    )
    service.start()
    try:
        wait_for(f"http://127.0.0.1:{port}")
        printed = dict(re.findall(r"^(?:export )?(S3SEG_\w+)=(\S+)", service.log, re.MULTILINE))
        assert printed.keys() == {"S3SEG_URL", "S3SEG_TOKEN"}
        for name, value in printed.items():
            monkeypatch.setenv(name, value)
        done = process(*shlex.split(segment.replace("$S3SEG_URL", printed["S3SEG_URL"]))[1:])
        assert done.returncode == 0, done.stderr
        assert len(re.findall(rb"^ +\d+ +tree ", done.stdout, re.MULTILINE)) == 2
        names: dict = {}
        exec(compile(code_blocks("README.md", "python")[1], "README.md", "exec"), names)
        local = s3seg.Segmenter("embedded").segment("examples/pictures/park.png", "tree")
        assert names["trees"].rles == local.rles
    finally:
        service.kill()


def test_the_tutorial_runs_from_top_to_bottom(clone):
    names: dict = {}
    for code in code_blocks("docs/tutorial/first-masks.md", "python"):
        exec(compile(code, "first-masks.md", "exec"), names)
    assert [len(names[found]) for found in ("houses", "trees", "clouds")] == [2, 1, 1]
    pictures = {path.stem for path in (ROOT / "examples" / "pictures").glob("*.png")}
    assert names_in(clone) == {"houses.png", *(f"{name}.json" for name in pictures)}


def test_the_tutorial_shows_what_a_segmenter_prints(clone, capsys):
    code = code_blocks("docs/tutorial/first-masks.md", "python")
    exec(compile(code[0] + code[1], "first-masks.md", "exec"), {})
    device = r"device='\w+', dtype='\w+'"
    shown = re.sub(device, "", code[1].partition("# ")[2].strip())
    assert re.sub(device, "", capsys.readouterr().out.strip()) == shown


def test_the_guide_to_results_runs_from_top_to_bottom(clone, capsys):
    names: dict = {}
    write_video(clone / "street.mp4")
    for code in code_blocks("docs/how-to/results.md", "python"):
        exec(compile(code, "results.md", "exec"), names)
        if "tolerance=pixels" in code:
            shown, printed = code.rpartition("# ")[2], capsys.readouterr().out.splitlines()[-3:]
            vertices = {int(pixels): int(count) for pixels, count in map(str.split, shown.split(","))}
            assert list(vertices) == [0, 1, 2]
            counted = {int(pixels): int(count) for pixels, count in map(str.split, printed)}
            assert counted == pytest.approx(vertices, rel=0.05)  # masks differ a little between machines
    assert 0 < len(names["sure"]) < len(names["trees"]) <= len(names["more"])
    assert names["more"].threshold == 0.2 < names["trees"].threshold
    assert len(names["detections"]) == len(names["outlines"]) == len(names["trees"])
    pictures = {"trees.png", "both.png", "again.png", "plain.png", "biggest.png"}
    assert names_in(clone) == pictures | {"trees.json", "coco.json", "street.mp4"}


@pytest.mark.slow
def test_the_pool_of_the_guide_to_results_runs_as_a_program(clone):
    (clone / "pool.py").write_text(code_blocks("docs/how-to/results.md", "python")[-1], encoding="utf-8")
    done = subprocess.run([sys.executable, "pool.py"], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.count("<Segmentation 'tree'") == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_of_ours_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?://|mailto:)([^)#]*)(?:#([^)]+))?\)", text):
        place = page.parent / target if target else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and place.suffix == ".md":
            assert anchor in anchors_of(place), f"{page.name} links to {target}#{anchor}, and there is no such heading"
