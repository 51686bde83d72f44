"""What the scripts of a release decide: versions to try, licences, and what a look-up of vulnerabilities proves."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGING)
    for name in ("build", "check", "sbom", "audit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


def test_the_lowest_versions_are_constraints_without_extras(script):
    lines = script("check").limits("lowest", [])
    assert "pyjwt==2.11" in lines
    assert "torch==2.6" in lines
    assert not [line for line in lines if set(line) & set("[]<>")]


def test_a_pinned_package_has_the_version_of_the_constraints_and_no_other(script):
    [pinned] = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    check = script("check")
    assert check.limits("newest", ["torch"]) == [pinned]
    assert [line for line in check.limits("lowest", ["torch"]) if line.startswith("torch")] == [pinned]


def test_a_pinned_package_that_the_constraints_do_not_have_is_an_error(script):
    with pytest.raises(SystemExit, match="tensorflow"):
        script("check").limits("newest", ["tensorflow"])


def component(*licences: dict) -> dict:
    return {"name": "a", "version": "1.0", "licenses": list(licences)}


@pytest.mark.parametrize(
    "licence",
    [
        {"license": {"id": "MIT"}},
        {"expression": "MPL-2.0 AND MIT"},
        {"expression": "(Apache-2.0 OR BSD-3-Clause) AND MIT"},
    ],
)
def test_an_accepted_licence_is_no_problem(script, licence):
    assert script("sbom").problems([component(licence)], []) == []


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ([{"license": {"id": "GPL-3.0-only"}}], "a 1.0 is under GPL-3.0-only,"),
        ([{"license": {"id": "MIT"}}, {"license": {"id": "AGPL-3.0-only"}}], "a 1.0 is under AGPL-3.0-only,"),
        ([{"expression": "MIT AND GPL-2.0-or-later"}], "a 1.0 is under GPL-2.0-or-later,"),
        ([{"license": {"name": "ask our lawyers"}}], "a 1.0 is under ask our lawyers,"),
        ([], "a 1.0 states no licence"),
    ],
)
def test_any_other_licence_is_a_problem(script, stated, said):
    [problem] = script("sbom").problems([component(*stated)], [])
    assert problem.startswith(said)


def test_a_library_under_the_gpl_is_a_problem_unless_the_package_is_known_to_bring_it(script, tmp_path):
    for name in ("av.libs/libx264-1.so", "numpy.libs/libx265-1.so", "numpy.libs/libgfortran-1.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sbom = script("sbom")
    found = sbom.gpl_libraries(tmp_path)
    assert found == {"av": ["libx264-1.so"], "numpy": ["libx265-1.so"]}
    [problem] = sbom.problems([], found)
    assert problem.startswith("numpy brings")


def test_the_notice_names_every_package_that_brings_a_library_under_the_gpl(script):
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for package, extra in script("sbom").BRINGS_GPL.items():
        assert package in notice
        assert f"extra {extra}" in notice


def looked_up(name: str, *vulnerabilities: dict) -> dict:
    return {"name": name, "version": "1.0", "vulns": list(vulnerabilities)}


def test_an_audit_that_looked_everything_up_and_found_nothing_is_good(script):
    status, text = script("audit").verdict(["a==1.0"], [looked_up("a")], "")
    assert (status, text) == (0, "packages looked up: 1 of 1; known vulnerabilities: 0")


def test_a_known_vulnerability_is_named_with_the_versions_that_mend_it(script):
    known = {"id": "CVE-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": ""}
    status, text = script("audit").verdict(["a==1.0", "b==1.0"], [looked_up("a", known)], "")
    assert status == 1
    assert "a 1.0: CVE-1, mended in 1.1, 2.0" in text


def test_an_audit_that_did_not_look_everything_up_says_so_and_is_not_good(script):
    skipped = {"name": "b", "version": "1.0", "skip_reason": "not found"}
    status, text = script("audit").verdict(["a==1.0", "b==1.0"], [looked_up("a"), skipped], "")
    assert status == 2
    assert "1 packages were not checked for vulnerabilities: not found" in text


def test_an_audit_without_an_answer_says_that_nothing_was_checked(script):
    status, text = script("audit").verdict(["a==1.0"], [], "no answer within 600 s")
    assert status == 2
    assert "none of the 1 packages was checked for vulnerabilities: no answer within 600 s" in text


def test_a_database_that_has_none_of_the_packages_is_taken_for_a_mirror(script):
    report = [{"name": name, "version": "1.0", "skip_reason": "not found"} for name in "ab"]
    status, text = script("audit").verdict(["a==1.0", "b==1.0"], report, "")
    assert status == 2
    assert text.startswith(
        "none of the 2 packages was checked for vulnerabilities: the database that was asked has none"
    )


def test_builds_of_a_version_are_looked_up_as_the_version_and_s3seg_is_not(script):
    parts = [("torch", "2.13.0+cpu"), ("s3seg-slim", "0.4.0"), ("numpy", "2.4.6")]
    components = [{"name": name, "version": version} for name, version in parts]
    assert script("audit").requirements(components) == ["numpy==2.4.6", "torch==2.13.0"]


class StandIn(BaseHTTPRequestHandler):
    """Answers as OSV does: the package "old" has a vulnerability, others have none."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        about = {"package": {"name": "old", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": FIXED}]}
        known = {"vulns": [{"id": "OSV-1", "summary": "wrong", "affected": [about]}]}
        body = json.dumps(known if asked["package"]["name"] == "old" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


FIXED = [{"introduced": "0"}, {"fixed": "1.1"}]


@pytest.fixture
def osv():
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audit(tmp_path: Path, url: str, *names: str) -> subprocess.CompletedProcess[str]:
    sbom = tmp_path / "sbom.json"
    sbom.write_text(json.dumps({"components": [{"name": name, "version": "1.0"} for name in names]}))
    command = [sys.executable, str(PACKAGING / "audit.py"), str(sbom), "--service", "osv", "--osv-url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_pip_audit_asks_the_database_and_its_answers_are_understood(osv, tmp_path):
    pytest.importorskip("pip_audit", reason="run `make test-slow`, which installs it")
    assert audit(tmp_path, osv, "new").returncode == 0
    done = audit(tmp_path, osv, "new", "old")
    assert done.returncode == 1
    assert done.stdout == "packages looked up: 2 of 2; known vulnerabilities: 1\nold 1.0: OSV-1, mended in 1.1\n"


@pytest.mark.slow
def test_a_database_that_cannot_be_reached_is_a_sentence_and_not_a_traceback(tmp_path):
    pytest.importorskip("pip_audit", reason="run `make test-slow`, which installs it")
    done = audit(tmp_path, "http://127.0.0.1:9/v1/query", "new")
    assert (done.returncode, done.stderr) == (2, "")
    assert "none of the 1 packages was checked for vulnerabilities: " in done.stdout
    assert "Traceback" not in done.stdout
