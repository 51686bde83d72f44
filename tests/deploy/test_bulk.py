"""The files for clusters are YAML, hold what their launchers require, and use the command as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from s3seg.cli import app

FOLDER = Path(__file__).parents[2] / "deploy" / "bulk"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "bulk.md"
FILES = sorted(FOLDER.glob("*.yaml"))
SUBCOMMANDS = ("run", "status", "coco", "estimate")


def commands_in(text: str) -> list[list[str]]:
    """Every ``s3seg bulk ...`` in a text, as words; comments and folded lines are joined."""
    joined = re.sub(r"\\\n\s*|\n#\s+(?=--)|\n\s+(?=--)", " ", text)
    found = re.findall(r"s3seg bulk ([^\n`|&>]+)", joined)
    found = [one.rpartition('"')[0] if one.count('"') % 2 else one for one in found]
    commands = [shlex.split(one, comments=True) for one in found]
    return [words for words in commands if "-p" in words or (words[0] in SUBCOMMANDS and len(words) > 1)]


def check_options(words: list[str]) -> None:
    """Parse the words as the command would."""
    root = typer.main.get_command(app)
    group = root.commands["bulk"]  # type: ignore[attr-defined]
    name, rest = (words[0], words[1:]) if words[0] in SUBCOMMANDS else ("run", words)
    group.commands[name].make_context(name, rest)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_yaml_and_says_that_it_was_not_tried(path):
    text = path.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    assert "Not tried." in text.splitlines()[0]


@pytest.mark.parametrize("path", [*FILES, PAGE], ids=lambda path: path.name)
def test_every_command_in_it_can_be_parsed(path):
    commands = commands_in(path.read_text())
    assert commands
    for words in commands:
        check_options(words)


def test_the_cluster_of_ray_has_what_its_launcher_requires():
    cluster = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    assert {"cluster_name", "provider", "auth", "available_node_types", "head_node_type"} <= cluster.keys()
    assert cluster["head_node_type"] in cluster["available_node_types"]
    assert all("node_config" in kind for kind in cluster["available_node_types"].values())
    assert cluster["available_node_types"]["head"]["resources"]["CPU"] == 0


def test_the_job_of_kuberay_has_what_its_operator_requires():
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all("rayStartParams" in group and group["template"]["spec"]["containers"] for group in groups)
    (worker,) = cluster["workerGroupSpecs"]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]


def test_the_task_of_skypilot_has_what_its_launcher_requires():
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    assert {"name", "num_nodes", "resources", "setup", "run"} <= task.keys()
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}, "no secret is in the file"
