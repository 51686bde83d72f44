"""Looks up the packages of an SBOM in a database of known vulnerabilities.

    make audit                                                 # the same, after `make sbom`
    python packaging/audit.py out/sbom.json --service osv      # ask OSV instead of PyPI

The exit status is 0 if every package was looked up and nothing is known, 1 if a vulnerability is known, and 2 if a
package was not looked up, since the database could not be reached or does not have it. s3seg itself is left out: it
is looked up by those who install it. Needs the dependency group ``release``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import build as distributions

ANSWER_S = 15
LIMIT_S = 600
OURS = ("s3seg", "s3seg-slim")
ADVICE = "run it again where the database can be reached, or ask the other one: python packaging/audit.py --help"


def main() -> None:
    """Ask, print the verdict, and end with its status."""
    parser = argparse.ArgumentParser(description="Look up the packages of an SBOM among known vulnerabilities.")
    parser.add_argument("sbom", type=Path, nargs="?", default=distributions.ROOT / "out" / "sbom.json")
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="the database to ask")
    parser.add_argument("--osv-url", help="a mirror of OSV")
    asked = parser.parse_args()
    wanted = requirements(json.loads(asked.sbom.read_text("utf-8"))["components"])
    report, reason = ask(wanted, asked.service, asked.osv_url)
    status, text = verdict(wanted, report, reason)
    print(text)
    sys.exit(status)


def requirements(components: list[dict[str, Any]]) -> list[str]:
    """Return an exact requirement for each package; a build of a version, such as 2.13.0+cpu, counts as the version."""
    versions = {one["name"]: one["version"].partition("+")[0] for one in components if one["name"] not in OURS}
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def ask(wanted: list[str], service: str, osv_url: str | None) -> tuple[list[dict[str, Any]], str]:
    """Return pip-audit's report on packages and an empty reason; or an empty report and why there is none."""
    with tempfile.TemporaryDirectory(prefix="s3seg-audit-") as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(wanted), "utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--timeout", str(ANSWER_S)]
        command += ["--vulnerability-service", service, *(["--osv-url", osv_url] if osv_url else [])]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return [], f"no answer within {LIMIT_S} s"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except ValueError:
        return [], (done.stderr.strip().splitlines() or [f"pip-audit ended with status {done.returncode}"])[-1]


def verdict(wanted: list[str], report: list[dict[str, Any]], reason: str) -> tuple[int, str]:
    """Return the exit status and what to print."""
    known = [
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}"
        for one in report
        for found in one.get("vulns", [])
    ]
    looked_up = sum("vulns" in one for one in report)
    missing = [one["skip_reason"] for one in report if "skip_reason" in one]
    lines = [f"packages looked up: {looked_up} of {len(wanted)}; known vulnerabilities: {len(known)}", *known]
    if not looked_up:
        because = reason or "the database that was asked has none of them, as is the case with a mirror of PyPI"
        lines = [f"none of the {len(wanted)} packages was checked for vulnerabilities: {because}", ADVICE]
    elif looked_up < len(wanted):
        because = missing[0] if missing else "the answer ends before them"
        lines += [f"{len(wanted) - looked_up} packages were not checked for vulnerabilities: {because}", ADVICE]
    return (1 if known else 2 if looked_up < len(wanted) else 0), "\n".join(lines)


if __name__ == "__main__":
    main()
