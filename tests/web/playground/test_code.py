"""The code that the page offers: run as it is copied, it gives the masks that the page shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from s3seg.checkpoints import metadata
from tests.helpers.pictures import encoded

LANGUAGES = ("python", "curl", "cli")
READ_CODE = """
const read = async () => {
  await page.evaluate(() => (document.querySelector("#code").open = true));
  const code = {};
  for (const language of ["python", "curl", "cli"]) {
    await page.check(`input[name=language][value=${language}]`, { force: true });
    code[language] = await text("#code-text");
  }
  const coco = JSON.parse(Buffer.from((await saved("#save-coco")).body, "base64"));
  return { code, masks: coco.annotations.map((one) => one.segmentation) };
};
"""
WITH_MASKS = """
import json
from s3seg.results.masks import to_coco
print(json.dumps([to_coco(rle) for result in results for rle in result.rles]))
"""


@pytest.fixture
def run_copied(tmp_path):
    """Runs copied code in a folder that has the picture; gives the masks that it found."""

    def run(language, code, *, token, file, body, threshold, **environment):
        (tmp_path / file).write_bytes(body)
        source = Path(__file__).parents[3] / "src"
        programs = tmp_path / "bin"
        programs.mkdir(exist_ok=True)
        command = programs / "s3seg"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m s3seg "$@"\n')
        command.chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("S3SEG_")}
        variables = {
            **inherited,
            "S3SEG_TOKEN": token,
            "PYTHONPATH": str(source),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            **environment,
        }
        if language == "python":
            words = [sys.executable, "-c", code + WITH_MASKS]
        else:
            words = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(
            words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        if language == "python":
            return json.loads(done.stdout.splitlines()[-1])
        if language == "curl":
            results = json.loads((tmp_path / "instances.json").read_text())["results"]
        else:
            results = json.loads((tmp_path / "result.json").read_text())
        return [one["rle"] for result in results for one in result["instances"] if one["score"] > threshold]

    return run


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


@needs_curl
def test_odd_names_and_words_are_quoted_in_every_language(browse, service, run_copied):
    name = 'it\'s "$HOME" `x` & träd.png'
    token = service.token("quoter")
    said = browse(
        READ_CODE
        + """
        await open(input.token);
        await page.setInputFiles("#file", { ...picture, name: input.name });
        await page.waitForSelector("#stage:not([hidden])");
        await find(input.words); await idle();
        return read();
        """,
        token=token,
        name=name,
        words="a cat's “$(exit 3)” \\n, -x",
    )
    assert len(said["masks"]) == 2
    for language in LANGUAGES:
        masks = run_copied(language, said["code"][language], token=token, file=name, body=encoded(), threshold=0.5)
        assert masks == said["masks"], language


STRANGERS_NAMES = (
    "$(touch stolen).png",
    "`touch stolen`; touch stolen #.png",
    "it's '; touch stolen; '.png",
    'a" ; touch stolen ; ".png',
    "a\x03\x15\ntouch stolen\n\x1b[200~.png",
    "!!:s/x/touch stolen/ \\.png",
    "-o stolen.png",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
)


@pytest.mark.parametrize("image_url", ["http://files.example/users/1/images/2.png", None])
@pytest.mark.parametrize("asked", ["words", "click", "concept", "examples"])
def test_the_name_of_a_picture_runs_nothing_where_the_code_is_pasted(run_node, tmp_path, asked, image_url):
    """In a shell that people type into, comments may be run: in zsh by default, in bash without an option."""
    box, spell = [0, 0, 4, 4], "$(touch stolen)`touch stolen`' \x7f"
    question = {
        "words": {"words": [spell]},
        "click": {"click": {"points": [[1, 1]], "labels": [1], "box": box}},
        "concept": {"concept": {"id": "7", "name": spell}},
        "examples": {"examples": {"name": spell, "words": spell, "boxes": [box], "negativeBoxes": [box]}},
    }[asked]
    code = run_node(
        'import { codeFor } from "./code.js"; print(input.names.map((file) => codeFor({ ...input, file })));',
        {
            "names": STRANGERS_NAMES,
            "url": "http://x.example",
            "imageUrl": image_url,
            "question": question,
            "threshold": 0.3,
        },
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("curl", "s3seg"):
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\0" {name} "$@" >> "$LOG"\n')
        (programs / name).chmod(0o755)
    for number, name in enumerate(STRANGERS_NAMES):
        for language in ("curl", "cli"):
            pasted = code[number][language]
            assert not re.search(r"[^\n -~]", pasted), pasted
            folder, log = tmp_path / f"{number}-{language}", tmp_path / f"{number}-{language}.log"
            folder.mkdir()
            subprocess.run(
                ["bash", "--norc", "--noprofile", "-i", "+m"],
                input=f"shopt -u interactive_comments\n{pasted}",
                cwd=folder,
                env={
                    "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                    "LOG": str(log),
                    "S3SEG_TOKEN": "t",
                    "HISTFILE": "",
                },
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert list(folder.iterdir()) == []
            words = log.read_text().split("\0") if log.exists() else []
            assert words or (language, asked) == ("cli", "concept")
            if language == "curl" and image_url is None:
                escaped = name.replace("\\", r"\\").replace('"', r"\"")
                assert f'file=@"{escaped}"' in words
            if language == "cli" and asked in ("words", "click"):
                assert words[:3] == ["s3seg", "segment", f"./{name}" if name.startswith("-") else name]
        compile(code[number]["python"], "pasted", "exec")
        assert not re.search(r"[^\n -~]", code[number]["python"])


@needs_curl
@pytest.mark.slow
def test_copied_code_finds_the_same_as_the_page_with_a_real_model(browse, real_service, run_copied):
    service, checkpoint = real_service
    token = service.token("copier")
    said = browse(
        READ_CODE
        + """
        await open(input.token); await page.click("#example");
        await page.waitForFunction(() => document.querySelector("#prompts").value !== "");
        const after = async (start, ended) => {
          await start();
          await page.waitForFunction((ended) => document.querySelector("#status").textContent.includes(ended), ended);
          await idle();
          return read();
        };
        const words = await after(() => page.press("#prompts", "Enter"), "star");
        await page.click("#groups .more"); await page.click("#more-like");
        await after(() => page.click("#find-like"), "like this");
        await page.fill("#threshold", "0.3");
        const examples = await read();
        await page.click("#groups .more"); await page.click("#repair"); await press([4.2, 3.9]);
        const click = await after(() => page.click("#send-repair"), "Repaired");
        return { words, examples, click: { ...click, masks: click.masks.slice(0, 1) } };
        """,
        token=token,
        at=service,
    )
    (url,) = re.findall(r"^image=(\S+)", said["words"]["code"]["curl"], re.MULTILINE)
    picture = httpx.get(url).raise_for_status().content
    default = metadata.CheckpointMetadata.from_folder(checkpoint).threshold
    for kind, threshold in (("words", default), ("examples", 0.3), ("click", 0.0)):
        shown = said[kind]
        assert shown["masks"]
        for language in LANGUAGES:
            masks = run_copied(
                language,
                shown["code"][language],
                token=token,
                file="shapes.png",
                body=picture,
                threshold=threshold,
                S3SEG_CHECKPOINT=str(checkpoint),  # of the command line on this machine, in the service's precision
                S3SEG_DTYPE="float32",
            )
            assert masks == shown["masks"], (kind, language)
