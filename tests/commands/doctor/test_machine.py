"""The checks of this machine never raise, never show a secret, and say what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s3seg.commands.doctor import machine
from s3seg.commands.doctor.machine import Compute, Finding
from s3seg.sam3.choices import choose_device, choose_dtype

pytestmark = pytest.mark.usefixtures("own_hub_cache")


def _gpu() -> Compute:
    return Compute(("cuda:0 NVIDIA L4, 24 GB", "cpu"), "cuda:0", "bfloat16", 8)


def _examine(compute=_gpu) -> dict[str, Finding]:
    return {finding.topic: finding for finding in machine.examine(compute=compute)}


def test_a_healthy_machine_has_no_problem() -> None:
    findings = _examine()
    assert not [finding for finding in findings.values() if finding.status == "problem"]
    assert findings["device"].value == "cuda:0 by default; available: cuda:0 NVIDIA L4, 24 GB; cpu"
    assert findings["dtype"].value == "bfloat16 by default"
    assert findings["default checkpoint"].value == "embedded"


def test_a_missing_checkpoint_comes_with_the_command_that_downloads_it() -> None:
    full = _examine()["checkpoint sam3"]
    assert (full.status, full.advice) == ("note", "s3seg models pull sam3")


def test_a_broken_torch_is_a_finding_and_the_other_checks_still_run() -> None:
    def broken() -> Compute:
        raise OSError("DLL load failed")

    findings = _examine(broken)
    assert findings["device"].status == "problem"
    assert "DLL load failed" in findings["device"].value
    assert "disk" in findings


def test_the_token_is_reported_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no token" in _examine()["hugging face"].value
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    findings = _examine()
    assert "token from HF_TOKEN" in findings["hugging face"].value
    assert "hf_secret" not in str(findings)


def test_a_saved_login_counts_as_a_token(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_secret")
    findings = _examine()
    assert "token from" in findings["hugging face"].value
    assert "hf_secret" not in str(findings)


def test_a_wrong_environment_variable_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3SEG_CHECKPOINT", "/nowhere/at/all")
    finding = _examine()["default checkpoint"]
    assert finding.status == "problem"
    assert "S3SEG_CHECKPOINT" in finding.value


def test_a_subprocess_queries_torch() -> None:
    found = machine.compute_in_subprocess()
    assert "cpu" in found.devices
    assert found.device == str(choose_device("auto"))
    assert f"torch.{found.dtype}" == str(choose_dtype("auto", choose_device("auto")))
    assert found.threads >= 1


def test_a_torch_that_cannot_be_imported_is_reported_with_its_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="libcudart"):
        machine.compute_in_subprocess()


def test_the_checks_do_not_import_torch_into_this_process() -> None:
    code = "import sys; from s3seg.commands.doctor import machine; machine.examine(compute=lambda: 1 / 0)"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
