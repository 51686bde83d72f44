"""What the project's own files say agrees with each other and with the code."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import s3seg
from s3seg.adapters.jwt import MAX_TOKEN_CHARS
from s3seg.app.settings import Settings
from s3seg.decoding import DecodingOptions, pool
from s3seg.edge import EdgeOptions
from s3seg.edge.concurrency import ConcurrencyLimiter
from s3seg.tasks.limits import MAX_PROMPT_CHARS, MAX_PROMPTS, MAX_UPLOAD_BYTES
from s3seg.web import metrics, server, turns
from s3seg.web.connection_limits import ConnectionLimits
from s3seg.web.validation import MAX_JSON_BYTES

ROOT = Path(__file__).parents[2]
TAGLINE = "Name what you are looking for, get its masks"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_tagline_is_the_same_everywhere():
    assert TAGLINE in read("README.md").splitlines()[2]
    assert tomllib.loads(read("pyproject.toml"))["project"]["description"].startswith(TAGLINE)
    assert inspect.getdoc(s3seg).startswith(f"{TAGLINE}.")
    assert yaml.safe_load(read("CITATION.cff"))["abstract"].startswith(TAGLINE)


def test_the_citation_has_the_fields_that_its_format_requires():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["license"] == tomllib.loads(read("pyproject.toml"))["project"]["license"]


def test_hooks_and_constraints_have_the_same_ruff():
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert f"ruff=={repository['rev'].removeprefix('v')}\n" in read("constraints.txt")


def test_the_workflow_tests_every_python_that_the_package_names():
    matrix = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]["tests"]["strategy"]["matrix"]
    classifiers = tomllib.loads(read("pyproject.toml"))["project"]["classifiers"]
    named = [found[1] for line in classifiers if (found := re.fullmatch(r"Programming Language .* (3\.\d+)", line))]
    assert matrix["python"] == named


def test_every_target_of_make_that_is_named_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    pages = ("CONTRIBUTING.md", "README.md", ".github/pull_request_template.md", "pyproject.toml")
    calls = [r"^(?:exec|        run:) make ([a-z -]+)$", r"`make ([a-z -]+)`", r"^make ([a-z-]+)"]
    text = "\n".join(read(name) for name in (".ci/run", ".github/workflows/tests.yml", *pages))
    named = {target for call in calls for said in re.findall(call, text, re.MULTILINE) for target in said.split()}
    assert {"check", "test", "docs", "demo", "release", "sbom", "audit"} <= named
    assert named <= targets
    assert set(re.findall(r'echo "make ([a-z-]+)', read("Makefile"))) == targets - {"help", "clean"}


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[bf]*.yml")), ids=lambda p: p.stem)
def test_an_issue_form_has_what_the_host_requires(form):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= content.keys()
    ids = [part["id"] for part in content["body"] if part["type"] != "markdown"]
    assert ids
    assert len(ids) == len(set(ids))


def test_the_index_of_decisions_has_every_page_under_its_title():
    index = read("docs/adr/README.md")
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert pages
    for page in pages:
        number, title = re.fullmatch(r"# (\d+)\. (.+)", page.read_text(encoding="utf-8").splitlines()[0]).groups()
        assert int(page.name[:4]) == int(number)
        assert f"| {number} | [{title}]({page.name}) |" in index


def test_the_limits_that_the_security_page_gives_are_those_of_the_code():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(.+?)`", read("SECURITY.md").partition("### Limits")[2], re.MULTILINE)
    limits = {what: limit for what, limit, _ in rows}
    options, settings = EdgeOptions(), Settings(_env_file=None)
    limits.pop("speed of an upload")  # given as an average
    limits.pop("unanswered requests on a connection")
    limits.pop("headers of a part of an upload")
    clients, decoding = ConnectionLimits(), DecodingOptions()
    patience_s = inspect.signature(ConcurrencyLimiter).parameters["patience_s"].default
    speed = f"KiB a second on average, after {clients.grace_s:g} s"
    assert limits == {
        "size of an upload": f"{MAX_UPLOAD_BYTES // 2**20} MB",
        "pixels of an upload": f"{settings.upload_megapixels:g} megapixels",
        "pixels of a picture that the gpu service reads": f"{settings.max_megapixels:g} megapixels",
        "connections": f"{clients.connections}, or half of the files that the process may open",
        "request head": (
            f"{clients.head_bytes // 1024} KiB, {clients.fields} fields of {clients.field_bytes // 1024} KiB, "
            f"a URL of {clients.target_bytes // 1024} KiB"
        ),
        "requests that start in a round of the event loop": (
            f"{turns._STARTED_AT_ONCE}, in the order in which they came"
        ),
        "answer that the system holds beyond the client's window": f"{server._UNSENT_BYTES // 1024} KiB",
        "age of an answer of `/metrics`": f"up to {metrics._WRITTEN_TTL_S:g} s",
        "time until an upload that arrives slowly may have to give way": (
            f"{patience_s:g} s; none for a user with several"
        ),
        f"of these, for users whose pictures took {decoding.slow_s:g} s or more in the last "
        f"{pool._SLOW_FOR_S / 60:g} minutes": "all but one",
        "time to send a head": f"{clients.head_s:g} s",
        "speed of a body": f"{clients.bytes_per_s // 1024} {speed}; {clients.body_s:g} s in all",
        "speed of reading an answer": f"{clients.read_bytes_per_s // 1024} {speed}",
        "uploads in memory at once": f"{options.max_uploads}, of one user {options.max_uploads_per_user}",
        "wait for a free upload slot": f"{options.upload_wait_s:g} s, then 503",
        "pictures decoded at once by a service": f"{settings.decode_processes}, of one user 1",
        "wait for a free process on the edge": f"{DecodingOptions().wait_s:g} s, then 503",
        "processor time of decoding a picture": (
            f"{settings.decode_deadline_s:g} s, then 400; by the clock {DecodingOptions().give_up_s:g} s, then 503"
        ),
        "memory of decoding a picture": f"{settings.decode_memory_mb / 1000:g} GB",
        "JSON body": f"{MAX_JSON_BYTES // 1024} KiB",
        "prompts in a task": f"{MAX_PROMPTS}, each of {MAX_PROMPT_CHARS} characters",
        "requests that wait for a task (`Prefer: wait`, event streams)": (
            f"{options.max_watchers}, of one user {options.max_watchers_per_user}"
        ),
        "token": f"{MAX_TOKEN_CHARS} characters",
        "requests to the gpu service in progress": f"{settings.admitted_at_once}, then 503",
        "attempts of a task, and its deadline": f"{settings.max_attempts}, and {settings.task_deadline_s:g} s",
    }
