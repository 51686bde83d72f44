"""``s3seg bulk`` as its user sees it; what needs ray is in ``tests/bulk/test_ray.py``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s3seg.bulk import run_folder
from s3seg.bulk.job import carry_out
from s3seg.bulk.listing import list_pictures
from s3seg.bulk.request import BulkRequest
from s3seg.bulk.run_folder import Run
from s3seg.bulk.segmenting import load_segmenter
from s3seg.bulk.shard_job import ShardJob
from s3seg.bulk.storage import Folder, S3Access
from s3seg.commands.bulk import inputs
from s3seg.commands.bulk.inputs import make_request, s3_access
from s3seg.errors import InvalidRequestError
from tests.bulk.pretend import PretendEngine
from tests.commands.running import Command, GetPicture


@pytest.fixture
def pictures(tmp_path: Path, picture: GetPicture) -> Path:
    folder = tmp_path / "p"
    folder.mkdir()
    for name in ("park", "shapes", "street"):
        shutil.copy(picture(name), folder)
    (folder / "text.png").write_text("no picture")
    return folder


def run_without_ray(pictures: Path, out: Path, *, stop_after: int | None = None) -> Run:
    """What ``s3seg bulk PICTURES OUT -p tree -p star --shard-rows 2`` does, with an engine in this process."""
    request = BulkRequest.make(["tree", "star"])
    run = run_folder.start(
        Folder.at(out),
        str(pictures),
        request,
        pictures=lambda: list_pictures(str(pictures), S3Access()),
        shard_rows=2,
    )
    segmenter = load_segmenter(request, "cpu")
    job = ShardJob(run=run, load=lambda request, device: segmenter)
    try:
        carry_out(job, lambda: PretendEngine(stop_after))
    except KeyboardInterrupt:
        assert stop_after is not None
    return run


# ---- the shape of the command ----


def test_a_first_word_that_is_no_command_is_the_input(s3seg: Command) -> None:
    done = s3seg("bulk", "only-an-input")
    assert done.exit_code == 2
    assert "Usage: s3seg bulk run [OPTIONS] INPUT OUT" in done.stderr
    assert "Missing argument 'OUT'" in done.stderr
    assert s3seg("bulk", "-p", "cat").stderr == s3seg("bulk", "run", "-p", "cat").stderr


def test_an_input_with_the_name_of_a_command_is_given_as_a_path(
    s3seg: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "find_spec", lambda name: object())
    done = s3seg("bulk", "./status", tmp_path / "out", "-p", "cat")
    assert "status: there is no such file or folder" in done.stderr
    assert s3seg("bulk", "status", tmp_path / "out").stderr.startswith("error: " + str(tmp_path / "out"))


def test_help_shows_the_commands(s3seg: Command) -> None:
    shown = s3seg("bulk", "--help").stdout
    for name in ("run", "status", "coco", "estimate", "INPUT OUT | COMMAND"):
        assert name in shown
    assert "--ray-address" in s3seg("bulk", "run", "--help").stdout


@pytest.mark.parametrize("missing", ["ray", "pyarrow"])
def test_a_missing_extra_is_told_with_the_command_that_installs_it(
    s3seg: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    monkeypatch.setattr(inputs, "find_spec", lambda name: None if name == missing else object())
    done = s3seg("bulk", tmp_path, tmp_path / "out", "-p", "cat")
    assert (done.exit_code, done.stderr) == (1, f"error: s3seg bulk needs {missing}: pip install 's3seg[bulk]'\n")
    if missing == "pyarrow":
        assert s3seg("bulk", "status", tmp_path).stderr == done.stderr


# ---- prompts and keys ----


def test_prompts_come_from_options_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xef\xbb\xbfdog\r\n\n red car \ncat\n")
    assert make_request(["cat"], str(file), {}).prompts == ("cat", "dog", "red car")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"caf\xe9", b"x" * (2**20 + 1)])
def test_a_file_of_prompts_that_cannot_be_used_is_told(s3seg: Command, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=r"--prompts .*prompts\.txt: "):
        make_request(None, str(file), {})


def test_without_a_prompt_the_command_says_how_to_give_one() -> None:
    with pytest.raises(InvalidRequestError, match="-p cat"):
        make_request(None, None, {})


def test_the_settings_of_r2_are_used_for_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_access() == S3Access()
    monkeypatch.setenv("S3SEG_R2_ENDPOINT_URL", "https://account.r2.cloudflarestorage.com")
    monkeypatch.setenv("S3SEG_R2_ACCESS_KEY_ID", "an-access-key-id")
    monkeypatch.setenv("S3SEG_R2_SECRET_ACCESS_KEY", "a-secret-access-key-of-some-length")
    assert s3_access() == S3Access(
        "https://account.r2.cloudflarestorage.com", "an-access-key-id", "a-secret-access-key-of-some-length"
    )


# ---- status, coco, estimate, and a run with nothing left to do ----


def test_status_tells_how_far_a_run_is(s3seg: Command, pictures: Path, tmp_path: Path) -> None:
    run_without_ray(pictures, tmp_path / "out", stop_after=1)
    done = s3seg("bulk", "status", tmp_path / "out")
    assert done.exit_code == 3
    assert "2 of 4 pictures (50.0%)" in done.stdout
    assert "not complete" in done.stdout
    run_without_ray(pictures, tmp_path / "out")
    done = s3seg("bulk", "status", tmp_path / "out")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}
    assert done.exit_code == 0
    assert (lines["prompts"], lines["done"], lines["failed"]) == ("tree, star", "4 of 4 pictures (100.0%)", "1")
    assert lines["state"] == "complete"


def test_coco_goes_to_standard_output(s3seg: Command, pictures: Path, tmp_path: Path) -> None:
    run_without_ray(pictures, tmp_path / "out", stop_after=1)
    done = s3seg("bulk", "coco", tmp_path / "out")
    assert done.exit_code == 3
    assert "not complete" in done.stderr
    assert len(json.loads(done.stdout)["images"]) == 2
    run_without_ray(pictures, tmp_path / "out")
    done = s3seg("bulk", "coco", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [Path(one["file_name"]).name for one in json.loads(done.stdout)["images"]] == [
        "park.png",
        "shapes.png",
        "street.png",
    ]


def test_estimate_tells_time_memory_and_size(s3seg: Command, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = s3seg("bulk", "estimate", pictures, "-p", "tree")
    assert done.exit_code == 0, done.stderr
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}
    assert lines["sample"] == "4 pictures, 1 of them cannot be read"
    assert "pictures a second in one process" in lines["rate"]
    assert "for each process" in lines["memory"]
    assert set(lines) == {"pictures", "sample", "rate", "time", "memory", "output"}


def test_a_complete_run_says_so_without_loading_ray_or_torch(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_without_ray(pictures, out)
    script = (
        "import sys\nfrom s3seg.cli import main\n"
        f"sys.argv = ['s3seg', 'bulk', {str(pictures)!r}, {str(out)!r}, '-p', 'tree', '-p', 'star']\n"
        "import s3seg.commands.bulk.inputs as inputs\n"
        "inputs.find_spec = lambda name: object()\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 3, end.code\n"
        "assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "4, each with one result" in done.stdout


def test_another_request_on_the_same_output_is_refused(
    s3seg: Command, pictures: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(inputs, "find_spec", lambda name: object())
    run_without_ray(pictures, tmp_path / "out", stop_after=0)
    done = s3seg("bulk", pictures, tmp_path / "out", "-p", "tree")
    assert done.exit_code == 2
    assert "holds a run of another request: prompts was ['tree', 'star'], not ['tree']" in done.stderr


@pytest.mark.parametrize("arguments", [["bulk", "--help"], ["bulk", "run", "--help"], ["--help"]])
def test_help_imports_neither_ray_nor_pyarrow(arguments: list[str]) -> None:
    script = (
        f"import sys\nfrom s3seg.cli import main\nsys.argv = ['s3seg', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'ray', 'pyarrow', 'numpy', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_importing_the_library_does_not_need_the_extra() -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('ray', 'pyarrow'):\n"
        "            raise ModuleNotFoundError(name, name=name.partition('.')[0])\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import s3seg, s3seg.bulk\n"
        "try:\n    s3seg.bulk('a', 'b', 'cat')\n"
        "except s3seg.S3segError as err:\n    print(err)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "many pictures need pyarrow: pip install 's3seg[bulk]'\n", done.stderr
