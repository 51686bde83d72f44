"""Alert rules and dashboard name metrics that the services have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from s3seg.app import Parts, edge_app, gpu_app
from s3seg.app.settings import Settings

pytestmark = pytest.mark.anyio
MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
GROUPS = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
PANELS = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel["targets"]]
ONLY_ON_A_GPU = {"s3seg_gpu_memory_used_bytes", "s3seg_gpu_memory_total_bytes"}


async def test_every_metric_exists(tmp_path: Path) -> None:
    parts = Parts(Settings(_env_file=None, data_dir=tmp_path, inference="memory"))  # type: ignore[call-arg]
    exported: set[str] = set()
    for service in (edge_app(parts=parts), gpu_app(parts=parts, insecure_no_key=True)):
        exported |= await _metrics(service)
    await parts.aclose()
    named = {name for expression in EXPRESSIONS for name in re.findall(r"\bs3seg_\w+", expression)}
    assert len(named) > 12, "the expressions were read"
    missing = {name for name in named if re.sub(r"_(bucket|count|sum|total)$", "", name) not in exported}
    assert missing <= ONLY_ON_A_GPU


async def _metrics(service) -> set[str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://here") as http:
        text = (await http.get("/metrics")).text
    return {re.sub(r"_total$", "", name) for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)}


def test_every_alert_tells_people_what_is_wrong() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == 8
    for rule in RULES:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_fire_as_promised() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
