"""Licences of a checkpoint: which ones apply, and a record of what the user has accepted.

The record is a small file in the repository's folder of the Hugging Face cache, beside the weights.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from s3seg.checkpoints._layout import repo_folder

LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
_RECORD = "s3seg-licences.json"
_SAM_LICENSE = "https://github.com/facebookresearch/sam3/blob/main/LICENSE"
_ADDRESSES = {
    "apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "bsd-3-clause": "https://opensource.org/license/bsd-3-clause",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/legalcode",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
}


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence that applies to a checkpoint.

    Attributes:
        name: Its name, such as "apache-2.0".
        url: Where its text is.
        covers: What it applies to.
        text_hash: Hash of the licence file in the repository, as the hub states it (git's SHA-1); None if the
            repository has no such file.
    """

    name: str
    url: str
    covers: str
    text_hash: str | None = None


def licences_of(
    repo_id: str, card: Mapping[str, Any], *, revision: str, file: str | None, text_hash: str | None
) -> tuple[Licence, ...]:
    """Return the licences of a repository with weights of SAM 3.

    These are the one that the repository's card names, and the SAM License, because the weights of every SAM 3 are
    those of Meta's or derived from them.

    Args:
        repo_id: The repository.
        card: The metadata of its card: "license", "license_name".
        revision: The branch, tag or commit, for the address of the licence file.
        file: Name of the licence file in the repository, if it has one.
        text_hash: Hash of that file.
    """
    named = card.get("license")
    name = card.get("license_name") if named in (None, "other") else named
    name = re.sub(r"[^\w .,+()-]", "", str(name or ""))[:60]  # shown in a terminal
    page = f"https://huggingface.co/{repo_id}"
    address = _ADDRESSES.get(name.lower()) or (f"{page}/blob/{revision}/{file}" if file else page)
    if re.match(r"sam\d?\b", name.lower().replace("_", "-")):
        return (Licence("SAM License", address if file else _SAM_LICENSE, "the weights", text_hash),)
    stated = Licence(name or "unnamed licence", address, "this repository, as its card says", text_hash)
    return stated, Licence("SAM License", _SAM_LICENSE, "what comes from Meta's SAM 3, such as the image encoder")


def accepted_licences(repo_id: str) -> tuple[Licence, ...]:
    """Return the licences that the user has accepted for a repository; empty if none, or if the record is damaged."""
    try:
        record = json.loads((repo_folder(repo_id) / _RECORD).read_text(encoding="utf-8"))
        return tuple(Licence(**licence) for licence in record["licences"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def record_acceptance(repo_id: str, licences: tuple[Licence, ...]) -> None:
    """Remember, with today's date, that the user has accepted these licences."""
    record = {
        "accepted_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "licences": [asdict(licence) for licence in licences],
    }
    path = repo_folder(repo_id) / _RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{_RECORD}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps(record, indent=1), encoding="utf-8")
    fresh.replace(path)
