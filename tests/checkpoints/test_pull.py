"""Download of checkpoints from a local mirror, with the embedded checkpoint as a small model."""

from __future__ import annotations

import errno
import gzip
import hashlib
import shlex
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub
import pytest
from PIL import Image

import s3seg
from s3seg import checkpoints
from s3seg.checkpoints._known import NO_ACCOUNT
from s3seg.errors import CheckpointError, CheckpointNotFoundError
from tests.checkpoints.mirrored import WEIGHTS
from tests.helpers.loopback import COMMIT, Mirror, reply, serving
from tests.sam3.random_models import random_oracle, tiny_lite_text_config
from tests.sam3.small_tokenizer import merges, vocabulary, write_vocabulary_and_merges

pytestmark = pytest.mark.usefixtures("online_hub")


def test_a_pull_brings_the_needed_files_and_no_others(mirror: Mirror) -> None:
    pulled = checkpoints.pull("sam3")
    assert {path.name for path in pulled.path.iterdir()} == {
        WEIGHTS,
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert all((pulled.path / path.name).read_bytes() == mirror.files[path.name] for path in pulled.path.iterdir())
    assert pulled.version == f"facebook/sam3@{COMMIT[:8]}"


def test_what_was_pulled_is_found_verified_and_used_by_default_without_the_network(mirror: Mirror) -> None:
    pulled = checkpoints.pull("sam3")
    mirror.requests.clear()
    assert checkpoints.resolve("sam3") == pulled
    assert checkpoints.resolve() == pulled
    assert checkpoints.resolve("facebook/sam3").path == pulled.path
    checked = checkpoints.verify("sam3")
    assert checked.ok
    assert {file.checksum for file in checked.files} == {"matches"}
    assert checked.is_verified
    assert {file.path.name: file.checked for file in checked.files} == {
        "config.json": ("JSON syntax", "SHA-1"),
        "tokenizer.json": ("JSON syntax", "SHA-1"),
        "tokenizer_config.json": ("JSON syntax", "SHA-1"),
        WEIGHTS: ("header", "size", "SHA-256"),
    }
    assert mirror.requests == []


def test_huggingface_hub_finds_what_we_pulled(mirror: Mirror) -> None:
    pulled = checkpoints.pull("sam3")
    for name in ("config.json", WEIGHTS):
        found = huggingface_hub.hf_hub_download(
            "facebook/sam3", name, cache_dir=checkpoints.hub_cache(), local_files_only=True
        )
        assert Path(found) == pulled.path / name


def test_files_that_huggingface_hub_downloaded_count_as_pulled(mirror: Mirror) -> None:
    for name in ("config.json", "tokenizer.json", WEIGHTS):
        huggingface_hub.hf_hub_download(
            "facebook/sam3", name, cache_dir=checkpoints.hub_cache(), endpoint=mirror.endpoint
        )
    assert checkpoints.resolve().name == "sam3"
    assert checkpoints.verify("sam3").ok


def test_a_second_pull_downloads_nothing(mirror: Mirror) -> None:
    checkpoints.pull("sam3")
    mirror.requests.clear()
    checkpoints.pull("sam3")
    assert mirror.asked_for("resolve", "GET") == []
    assert mirror.asked_for(f"/{WEIGHTS}?signed") == []


def test_connections_that_are_cut_are_taken_up_where_they_broke(mirror: Mirror) -> None:
    mirror.cuts = [1_000_000, 2_000_000, 5]
    pulled = checkpoints.pull("sam3")
    assert (pulled.path / WEIGHTS).read_bytes() == mirror.files[WEIGHTS]
    ranges = [asked for _, _, asked, _ in mirror.asked_for(f"/{WEIGHTS}?signed")]
    assert ranges == [None, "bytes=1000000-", "bytes=3000000-", "bytes=3000005-"]


def test_an_interrupted_pull_is_resumed_by_the_next_one(mirror: Mirror) -> None:
    def interrupt(name: str, done: int, size: int | None) -> None:
        if name == WEIGHTS and done > 3_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.pull("sam3", progress=interrupt)
    with pytest.raises(CheckpointNotFoundError, match="s3seg models pull sam3"):
        checkpoints.resolve("sam3")
    assert checkpoints.resolve().name == "embedded"
    assert next(item for item in checkpoints.inventory() if item.name == "sam3").size_bytes > 3_000_000

    mirror.requests.clear()
    pulled = checkpoints.pull("sam3")
    (_, _, asked, _) = mirror.asked_for(f"/{WEIGHTS}?signed")[0]
    assert asked is not None
    assert int(asked.removeprefix("bytes=").rstrip("-")) > 3_000_000
    assert checkpoints.verify(pulled).ok


def test_a_server_that_ignores_ranges_makes_the_file_start_anew(mirror: Mirror) -> None:
    mirror.cuts, mirror.ranges = [1_000_000], False
    pulled = checkpoints.pull("sam3")
    assert (pulled.path / WEIGHTS).read_bytes() == mirror.files[WEIGHTS]


def test_progress_is_told_from_the_first_byte_to_the_last(mirror: Mirror) -> None:
    told: list[tuple[str, int, int | None]] = []
    checkpoints.pull("sam3", progress=lambda *step: told.append(step))
    size = len(mirror.files[WEIGHTS])
    of_weights = [done for name, done, total in told if name == WEIGHTS and total == size]
    assert of_weights == sorted(of_weights)
    assert of_weights[-1] == size


def test_a_connection_that_never_holds_is_an_error_that_keeps_what_came(mirror: Mirror) -> None:
    mirror.cuts = [1_000_000] + [0] * 20
    with pytest.raises(CheckpointError, match="to resume the download"):
        checkpoints.pull("sam3")
    mirror.cuts = []
    mirror.requests.clear()
    checkpoints.pull("sam3")
    assert mirror.asked_for(f"/{WEIGHTS}?signed")[0][2] == "bytes=1000000-"


def test_wrong_contents_never_get_the_name_of_the_file(mirror: Mirror) -> None:
    mirror.corrupt = True
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoints.pull("sam3")
    with pytest.raises(CheckpointNotFoundError):
        checkpoints.resolve("sam3")
    mirror.corrupt = False
    assert checkpoints.verify(checkpoints.pull("sam3")).ok


def test_light_text_is_pulled_without_a_token_and_none_is_sent(lite_text: Mirror) -> None:
    pulled = checkpoints.pull("litetext", accept_license=True)
    assert pulled.repo_id == "vil-uob/sam3-litetext-s0"
    assert {authorization for *_, authorization in lite_text.requests} == {None}
    lite_text.requests.clear()
    assert checkpoints.resolve() == checkpoints.resolve("litetext") == pulled
    assert checkpoints.resolve("vil-uob/sam3-litetext-s0").path == pulled.path
    assert checkpoints.verify("litetext").is_verified
    assert lite_text.requests == []


def test_a_light_text_checkpoint_works_offline_once_it_was_pulled(lite_text: Mirror, tmp_path: Path) -> None:
    random_oracle(tiny_lite_text_config(vocab_size=len(vocabulary(merges()))), tmp_path / "tiny")
    write_vocabulary_and_merges(tmp_path / "tiny", merges())
    lite_text.files = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    checkpoints.pull("litetext", accept_license=True)
    lite_text.requests.clear()
    for name in ("litetext", "vil-uob/sam3-litetext-s0", None):
        segmenter = s3seg.Segmenter(name, device="cpu")
        assert segmenter.model.version == f"vil-uob/sam3-litetext-s0@{COMMIT[:8]}"
        assert segmenter.segment(Image.new("RGB", (40, 30), "red"), "cat").size == (30, 40)
    assert lite_text.requests == []


def test_a_token_that_is_set_is_sent(lite_text: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    checkpoints.pull("litetext", accept_license=True)
    assert {authorization for *_, authorization in lite_text.asked_for("/resolve/")} == {"Bearer hf_mine"}


def test_without_a_token_the_gate_is_explained_in_one_message(mirror: Mirror) -> None:
    mirror.token = "hf_right"
    with pytest.raises(CheckpointNotFoundError) as caught:
        checkpoints.pull("sam3")
    message = str(caught.value)
    assert "no valid token" in message
    for step in (
        "https://huggingface.co/facebook/sam3",
        "hf auth login",
        "HF_TOKEN",
        "s3seg models pull sam3",
    ):
        assert step in message
    assert "Please log in" in message
    assert message.endswith(NO_ACCOUNT)


def test_the_gate_of_sam31_is_explained_in_the_same_way(mirror: Mirror) -> None:
    mirror.repo_id, mirror.token = "facebook/sam3.1", "hf_right"
    with pytest.raises(CheckpointNotFoundError, match="gated") as caught:
        checkpoints.pull("sam3.1")
    assert "https://huggingface.co/facebook/sam3.1, log in" in str(caught.value)
    assert str(caught.value).endswith(NO_ACCOUNT)


def test_a_token_without_access_is_told_apart_and_never_shown(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.token, mirror.known_tokens = "hf_right", ("hf_stranger",)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(CheckpointNotFoundError, match="has not been granted access") as caught:
        checkpoints.pull("sam3")
    assert "hf_stranger" not in str(caught.value)


def test_the_token_opens_the_gate_and_does_not_reach_the_storage_host(mirror: Mirror) -> None:
    mirror.token = "hf_right"
    checkpoints.pull("sam3", token="hf_right")
    assert {authorization for *_, authorization in mirror.asked_for("?signed")} == {None}


def test_a_repository_or_revision_that_does_not_exist_is_named(mirror: Mirror) -> None:
    with pytest.raises(CheckpointNotFoundError, match="nobody/nothing"):
        checkpoints.pull("nobody/nothing")
    with pytest.raises(CheckpointNotFoundError, match="no revision 'v9'"):
        checkpoints.pull("sam3", revision="v9")


@pytest.mark.parametrize(
    ("status", "is_final"),
    [(404, True), (403, True), (410, True), (408, False), (429, False), (500, False), (503, False)],
)
def test_only_errors_that_may_pass_suggest_to_pull_again(
    status: int, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        reply(request, status, b"{}")  # without the headers in which a hub says more

    with serving(answer) as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror)
        with pytest.raises(CheckpointError, match=str(status)) as caught:
            checkpoints.pull("sam3")
    assert ("pulling again will not help" in str(caught.value)) == is_final
    assert ("try again later" in str(caught.value) or "pull again" in str(caught.value)) != is_final
    if is_final:
        assert len(asked) == 1


def test_a_file_that_is_gone_from_the_storage_is_asked_for_once(mirror: Mirror) -> None:
    mirror.gone = True
    with pytest.raises(CheckpointNotFoundError, match="pulling again will not help"):
        checkpoints.pull("sam3")
    assert len(mirror.asked_for(f"/{WEIGHTS}?signed")) == 1


def test_a_repository_without_weights_is_refused(mirror: Mirror) -> None:
    mirror.files = {"README.md": b"", "config.json": b"{}"}
    with pytest.raises(CheckpointNotFoundError, match="no weights"):
        checkpoints.pull("sam3")


def test_the_reference_layout_is_pulled_where_there_is_no_other(mirror: Mirror) -> None:
    mirror.files = {"sam3.pt": b"PK weights", "bpe_simple_vocab_16e6.txt.gz": b"words", "notes.txt": b""}
    pulled = checkpoints.pull("sam3")
    assert {path.name for path in pulled.path.iterdir()} == {"sam3.pt", "bpe_simple_vocab_16e6.txt.gz"}


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (("sam3.1_multiplex.pt", "sam3.pt"), "sam3.1_multiplex.pt"),
        (("sam3.safetensors",), "sam3.safetensors"),
        (("model.safetensors", "model-int8.safetensors", "model-fp8.safetensors"), "model.safetensors"),
    ],
)
def test_one_set_of_weights_is_pulled_under_each_published_name(
    mirror: Mirror, files: tuple[str, ...], chosen: str
) -> None:
    mirror.files = {"config.json": b"{}", "tokenizer.json": b"{}", **dict.fromkeys(files, b"PK weights")}
    pulled = checkpoints.pull("sam3")
    assert {path.name for path in pulled.path.iterdir()} == {"config.json", "tokenizer.json", chosen}


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_an_incomplete_repository_is_refused_before_the_download(mirror: Mirror, missing: str) -> None:
    del mirror.files[missing]
    with pytest.raises(CheckpointNotFoundError, match=f"has weights but no {missing}"):
        checkpoints.pull("sam3")
    assert mirror.asked_for("/resolve/") == []


def test_weights_without_a_tokenizer_get_the_commands_that_add_the_one_of_clip(mirror: Mirror) -> None:
    mirror.repo_id = "AEmotionStudio/sam3"
    mirror.files = {"sam3.safetensors": mirror.files[WEIGHTS], "README.md": b""}
    with pytest.raises(CheckpointNotFoundError, match=r"no tokenizer\.json.* tokenizer of\s+CLIP") as caught:
        checkpoints.pull(mirror.repo_id, revision=COMMIT)
    assert mirror.asked_for("/resolve/") == []
    download, add, verify = (shlex.split(line) for line in str(caught.value).splitlines()[1:])
    folder = "./AEmotionStudio-sam3"
    assert download == [
        *("hf", "download", "AEmotionStudio/sam3", "sam3.safetensors"),
        *("--revision", COMMIT, "--local-dir", folder),
    ]
    assert add == ["hf", "download", "openai/clip-vit-base-patch32", "tokenizer.json", "--local-dir", folder]
    assert verify == ["s3seg", "models", "verify", folder, "--try"]


def test_a_folder_without_a_tokenizer_gets_the_command_that_adds_one(mirror: Mirror, tmp_path: Path) -> None:
    (folder := tmp_path / "my weights").mkdir()
    (folder / "sam3.safetensors").write_bytes(mirror.files[WEIGHTS])
    with pytest.raises(CheckpointNotFoundError, match=r"tokenizer\.json missing; SAM 3 uses .* CLIP") as err:
        checkpoints.resolve(folder)
    command = shlex.split(str(err.value).partition("add it with: ")[2])
    assert command[:2] == ["hf", "download"]
    assert command[-1] == str(folder)
    mirror.repo_id, mirror.files = command[2], {"tokenizer.json": mirror.files["tokenizer.json"]}
    done = subprocess.run(
        [Path(sys.executable).parent / "hf", *command[1:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert checkpoints.resolve(folder).folder == folder


def test_a_repository_with_several_weights_of_unknown_names_is_refused(mirror: Mirror) -> None:
    mirror.files = {"config.json": b"{}", "tokenizer.json": b"{}", "a.safetensors": b"a", "b.safetensors": b"b"}
    with pytest.raises(CheckpointNotFoundError, match="several weight files in facebook/sam3"):
        checkpoints.pull("sam3")


def test_shards_are_pulled_with_their_index(mirror: Mirror) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 100 for n in (1, 2)}
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    mirror.files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": index.encode(),
        **shards,
    }
    pulled = checkpoints.pull("sam3")
    assert {path.name for path in pulled.files} == set(mirror.files)


def test_offline_uses_what_is_here_and_otherwise_says_so(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointNotFoundError, match="HF_HUB_OFFLINE"):
        checkpoints.pull("sam3")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    pulled = checkpoints.pull("sam3")
    mirror.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert checkpoints.pull("sam3").path == pulled.path
    assert mirror.requests == []


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request: None) as gone:
        pass
    monkeypatch.setenv("HF_ENDPOINT", gone)
    with pytest.raises(CheckpointError, match=f"cannot reach {gone}"):
        checkpoints.pull("sam3")


def test_a_server_that_is_no_hub_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request: reply(request, 200, b"<html>welcome</html>")) as portal:
        monkeypatch.setenv("HF_ENDPOINT", portal)
        with pytest.raises(CheckpointError, match="does not answer like a Hugging Face hub"):
            checkpoints.pull("sam3")


def test_a_commit_that_leads_out_of_the_cache_is_refused(mirror: Mirror) -> None:
    mirror.commit = "../../../elsewhere"
    with pytest.raises(CheckpointError, match="does not answer like a Hugging Face hub"):
        checkpoints.pull("sam3")
    assert not mirror.asked_for("/resolve/")


def test_too_small_a_disk_is_refused_before_the_first_byte(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="not enough disk space"):
        checkpoints.pull("sam3")
    assert mirror.asked_for("?signed") == []


def test_a_disk_that_fills_up_is_explained(mirror: Mirror) -> None:
    def full(name: str, done: int, size: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="is full"):
        checkpoints.pull("sam3", progress=full)


def test_without_symbolic_links_the_files_are_moved_not_doubled(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    pulled = checkpoints.pull("sam3")
    assert not (pulled.path / WEIGHTS).is_symlink()
    assert list((pulled.path.parents[1] / "blobs").iterdir()) == []
    mirror.requests.clear()
    checkpoints.pull("sam3")
    assert mirror.asked_for("?signed") == []


def test_verify_notices_a_changed_byte_and_a_missing_end(mirror: Mirror) -> None:
    pulled = checkpoints.pull("sam3")
    weights = (pulled.path / WEIGHTS).resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (bad,) = [file for file in checkpoints.verify("sam3").files if file.problem]
    assert (bad.path.name, bad.checksum) == (WEIGHTS, "differs")
    assert hashlib.sha256(content).hexdigest() != weights.name
    weights.write_bytes(content[:-1000])
    (bad,) = [file for file in checkpoints.verify("sam3").files if file.problem]
    assert bad.problem is not None
    assert "truncated" in bad.problem
    assert bad.checked == ()


def test_files_outside_the_cache_are_checked_but_not_verified(tmp_path: Path) -> None:
    shutil.copytree(checkpoints.resolve("embedded").path, tmp_path / "mine")
    (tmp_path / "mine" / "merges.txt").write_text("a b")
    (tmp_path / "mine" / "bpe.txt.gz").write_bytes(gzip.compress(b"a b"))
    checked = checkpoints.verify(tmp_path / "mine")
    assert checked.ok
    assert not checked.is_verified
    assert not any(file.is_verified for file in checked.files)
    assert {file.path.name: file.checked for file in checked.files} == {
        "bpe.txt.gz": ("CRC-32",),
        "config.json": ("JSON syntax",),
        "merges.txt": (),
        "tokenizer.json": ("JSON syntax",),
        "tokenizer_config.json": ("JSON syntax",),
        WEIGHTS: ("header", "size"),
    }


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"a b")[:-3], b"a b", gzip.compress(b"a b" * 99)[:-8] + bytes(8)],
    ids=["cut short", "not gzip", "wrong checksum"],
)
def test_a_damaged_gzip_vocabulary_is_noticed(tmp_path: Path, content: bytes) -> None:
    shutil.copytree(checkpoints.resolve("embedded").path, tmp_path / "mine")
    (tmp_path / "mine" / "bpe.txt.gz").write_bytes(content)
    (bad,) = [file for file in checkpoints.verify(tmp_path / "mine").files if file.problem]
    assert bad.path.name == "bpe.txt.gz"
    assert bad.problem.startswith("damaged gzip file")


def test_the_embedded_checkpoint_needs_no_pull() -> None:
    assert checkpoints.pull("embedded") == checkpoints.resolve("embedded")


def test_what_cannot_be_a_repository_is_refused_before_asking() -> None:
    with pytest.raises(CheckpointNotFoundError, match="cannot pull"):
        checkpoints.pull("sam3/with/slashes")
