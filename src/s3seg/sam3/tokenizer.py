"""CLIP's byte-pair tokenizer, from whichever files a checkpoint brings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as BPETokenizer
from tokenizers.models import BPE

from s3seg.errors import CheckpointError, CheckpointNotFoundError, PromptError

START, END = "<|startoftext|>", "<|endoftext|>"
_MERGES_IN_CLIP = 49_152 - 256 - 2  # the published .txt.gz holds more lines than CLIP uses
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Prompts to token ids, between a start and an end token."""

    bpe: BPETokenizer
    context: int
    """The most tokens a prompt may have, start and end included."""

    @classmethod
    def from_folder(cls, folder: Path, *, context: int) -> Tokenizer:
        """Read ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``, or CLIP's ``*.txt.gz``.

        Raises:
            CheckpointNotFoundError: The folder holds none of these.
            CheckpointError: What it holds cannot be read.
        """
        try:
            bpe = _read(folder)
        except Exception as err:  # tokenizers raises bare Exception
            raise CheckpointError(f"the tokenizer in {folder} cannot be read: {err}") from err
        if bpe is None:
            raise CheckpointNotFoundError(
                f"no tokenizer in {folder}: it holds neither tokenizer.json, nor vocab.json and merges.txt, "
                "nor a BPE *.txt.gz"
            )
        bpe.no_padding()
        bpe.no_truncation()
        return cls(bpe, context)

    def __call__(self, prompt: str) -> list[int]:
        """The ids of a prompt's tokens, start and end included.

        Raises:
            PromptError: The prompt is blank, is not Unicode, or has more tokens than the model takes.
        """
        if not prompt.strip():
            raise PromptError("the prompt is empty; say what to look for, such as 'cat'")
        try:
            ids = self.bpe.encode(prompt).ids
        except TypeError as err:  # half of a surrogate pair, which JSON can carry
            raise PromptError(f"the prompt is not Unicode text: {prompt[:60]!r}") from err
        if len(ids) > self.context:
            raise PromptError(
                f"the prompt has {len(ids) - 2} tokens, and the model takes at most {self.context - 2}; "
                f"make it shorter: {prompt[:60]!r}"
            )
        return ids


def _read(folder: Path) -> BPETokenizer | None:
    if (file := folder / "tokenizer.json").is_file():
        return BPETokenizer.from_file(str(file))
    if (file := folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        merges = _merges((folder / "merges.txt").read_text(encoding="utf-8"))
        return _clip(json.loads(file.read_text(encoding="utf-8")), merges)
    if packed := sorted(folder.glob("*.txt.gz")):
        merges = _merges(gzip.decompress(packed[0].read_bytes()).decode("utf-8"))[:_MERGES_IN_CLIP]
        return _clip(_vocabulary(merges), merges)
    return None


def _clip(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> BPETokenizer:
    tokenizer = BPETokenizer(
        BPE(vocabulary, list(merges), unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, vocabulary[token]) for token in (START, END)]
    )
    return tokenizer


def _merges(text: str) -> list[tuple[str, str]]:
    lines = text.strip().splitlines()
    if lines and lines[0].startswith(("#", '"')):  # a version line
        lines = lines[1:]
    pairs = (line.split() for line in lines)
    return [(a, b) for a, b in pairs]


def _vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The vocabulary that CLIP derives from its merges: bytes, bytes that end a word, merged pairs, start and end."""
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}


def _byte_alphabet() -> list[str]:
    """A printable letter for each byte, in CLIP's order: printable Latin-1 first, then the rest from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = 256 - len(printable)
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(rest)]
