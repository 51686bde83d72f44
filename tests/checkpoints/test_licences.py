"""Licences of checkpoints: what is shown, asked once and recorded before a download."""

from __future__ import annotations

import hashlib
import json

import huggingface_hub
import pytest

from s3seg import checkpoints
from s3seg.checkpoints import Licence, Offer
from s3seg.errors import CheckpointError
from tests.checkpoints.mirrored import WEIGHTS
from tests.helpers.loopback import Mirror

pytestmark = pytest.mark.usefixtures("online_hub")


APACHE = Licence(
    "apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "this repository, as its card says", text_hash=None
)


SAM = Licence(
    "SAM License",
    "https://github.com/facebookresearch/sam3/blob/main/LICENSE",
    "what comes from Meta's SAM 3, such as the image encoder",
)


def test_the_offer_names_size_source_and_both_licences_before_any_download(lite_text: Mirror) -> None:
    offers: list[Offer] = []

    def refuse(offer: Offer) -> bool:
        offers.append(offer)
        return False

    with pytest.raises(CheckpointError, match="nothing was downloaded") as caught:
        checkpoints.pull("litetext", confirm=refuse)
    (offer,) = offers
    size = sum(file.stat().st_size for file in checkpoints.resolve("embedded").files)
    assert (offer.size_bytes, offer.download_bytes) == (size, size)
    assert offer.source == f"{lite_text.endpoint}/vil-uob/sam3-litetext-s0"
    assert offer.licences == (APACHE, SAM)
    assert not offer.accepted
    assert APACHE.url in str(caught.value)
    assert SAM.url in str(caught.value)
    assert lite_text.asked_for("?signed") == []
    assert lite_text.asked_for("/resolve/", "GET") == []


def test_without_consent_nothing_is_downloaded(lite_text: Mirror) -> None:
    with pytest.raises(CheckpointError, match="s3seg models pull litetext --accept-license"):
        checkpoints.pull("litetext")
    assert lite_text.asked_for("?signed") == []


def test_licences_are_asked_for_once_also_when_the_download_is_interrupted(lite_text: Mirror) -> None:
    asked: list[bool] = []

    def accept(offer: Offer) -> bool:
        asked.append(offer.accepted)
        return True

    lite_text.gone = True
    with pytest.raises(CheckpointError):
        checkpoints.pull("litetext", confirm=accept)
    lite_text.gone = False
    checkpoints.pull("litetext", confirm=accept)
    assert asked == [False, True]
    record = checkpoints.hub_cache() / "models--vil-uob--sam3-litetext-s0" / "s3seg-licences.json"
    assert json.loads(record.read_text())["accepted_at"].startswith("20")
    checkpoints.pull("litetext", confirm=accept)
    assert len(asked) == 2


def test_a_licence_text_that_changes_is_asked_for_again(lite_text: Mirror) -> None:
    lite_text.files["LICENSE"] = b"be good"
    pulled = checkpoints.pull("litetext", accept_license=True)
    assert (pulled.path / "LICENSE").read_bytes() == b"be good"
    record = json.loads((pulled.path.parents[1] / "s3seg-licences.json").read_text())
    assert record["licences"][0]["text_hash"] == hashlib.sha1(b"blob 7\0be good").hexdigest()
    lite_text.files["LICENSE"] = b"be better"
    with pytest.raises(CheckpointError, match="not accepted"):
        checkpoints.pull("litetext")


def test_files_that_are_here_already_need_no_consent(lite_text: Mirror) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS):
        huggingface_hub.hf_hub_download(
            lite_text.repo_id, name, cache_dir=checkpoints.hub_cache(), endpoint=lite_text.endpoint
        )
    assert checkpoints.pull("litetext").repo_id == lite_text.repo_id


@pytest.mark.parametrize(
    ("card", "licence_file", "expected"),
    [
        ({"license": "other", "license_name": "sam-license"}, None, [SAM.url]),
        (
            {"license": "other", "license_name": "sam-license"},
            "LICENSE",
            ["https://huggingface.co/org/copy/blob/main/LICENSE"],
        ),
        ({"license": "mit"}, None, ["https://opensource.org/license/mit", SAM.url]),
        ({"license": "other"}, "LICENSE", ["https://huggingface.co/org/copy/blob/main/LICENSE", SAM.url]),
        ({}, None, ["https://huggingface.co/org/copy", SAM.url]),
        ({"license": "\x1b[2Kno licence"}, None, ["https://huggingface.co/org/copy", SAM.url]),
    ],
)
def test_each_licence_has_an_address(
    mirror: Mirror, card: dict[str, str], licence_file: str | None, expected: list[str]
) -> None:
    mirror.repo_id, mirror.gated, mirror.card = "org/copy", False, card
    if licence_file:
        mirror.files[licence_file] = b"a text"
    offers: list[Offer] = []
    checkpoints.pull("org/copy", confirm=lambda offer: offers.append(offer) is None)
    assert [licence.url for licence in offers[0].licences] == expected
    assert all("\x1b" not in licence.name for licence in offers[0].licences)
    assert checkpoints.resolve().repo_id == "org/copy"


def test_licences_accepted_at_the_hub_are_shown_and_not_asked_for(mirror: Mirror) -> None:
    offers: list[Offer] = []
    checkpoints.pull("sam3", confirm=lambda offer: offers.append(offer) is None)
    assert [offer.accepted for offer in offers] == [True]
