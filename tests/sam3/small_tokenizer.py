"""A small tokenizer of CLIP's kind, and CLIP's published algorithm written out slowly."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import regex

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = (
    "cat",
    "cats",
    "dog",
    "the",
    "then",
    "red",
    "traffic",
    "light",
    "café",
    "über",
    "naïve",
    "it",
    "'s",
    "...",
)
_HEADER = '"bpe_simple_vocab_16e6.txt#version: 0.2'
_PATTERN = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


def letters() -> dict[int, str]:
    """A letter for each byte, as GPT-2 and CLIP define them: itself where it prints, else the next from U+0100 on."""
    prints = {b: chr(b) for b in range(256) if chr(b).isprintable() and not chr(b).isspace()}
    others = [b for b in range(256) if b not in prints]
    return prints | {b: chr(256 + i) for i, b in enumerate(others)}


def merges(words: Iterable[str] = WORDS) -> list[tuple[str, str]]:
    """Merges that build up each word from its left, the last letter carrying the word's end."""
    pairs: dict[tuple[str, str], None] = {}
    for word in words:
        first, *rest = _split(word)
        for part in rest:
            pairs[first, part] = None
            first += part
    return list(pairs)


def vocabulary(pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Ids in CLIP's order."""
    alphabet = list(letters().values())
    tokens = [*alphabet, *(f"{a}</w>" for a in alphabet), *(a + b for a, b in pairs), START, END]
    return {token: i for i, token in enumerate(tokens)}


def write_packed(folder: Path, pairs: Iterable[tuple[str, str]], *, after: Iterable[str] = ()) -> None:
    """Write ``*.txt.gz`` as CLIP publishes it."""
    text = "\n".join([_HEADER, *(f"{a} {b}" for a, b in pairs), *after]) + "\n"
    (folder / "bpe_simple_vocab.txt.gz").write_bytes(gzip.compress(text.encode()))


def write_vocabulary_and_merges(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Write ``vocab.json`` and ``merges.txt``."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary(pairs)))
    lines = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in pairs)])
    (folder / "merges.txt").write_text(lines + "\n", encoding="utf-8")


def slow_ids(text: str, pairs: list[tuple[str, str]]) -> list[int]:
    """Token ids of a text, start and end included, merging the best-ranked pair again and again."""
    ids, ranks = vocabulary(pairs), {pair: i for i, pair in enumerate(pairs)}
    text = " ".join(unicodedata.normalize("NFC", text).split()).lower()
    found = [ids[START]]
    for word in _PATTERN.findall(text):
        parts = _split(word)
        while len(parts) > 1:
            rank, i = min((ranks.get((a, b), len(ranks)), i) for i, (a, b) in enumerate(pairwise(parts)))
            if rank == len(ranks):
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        found += [ids[part] for part in parts]
    return [*found, ids[END]]


def _split(word: str) -> list[str]:
    parts = [letters()[b] for b in word.encode()]
    return [*parts[:-1], parts[-1] + "</w>"]
