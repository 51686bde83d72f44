"""The CLIP byte-pair tokenizer, read from any of the three file formats that checkpoints come with."""

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
_MERGES_IN_CLIP = 49_152 - 256 - 2  # the published .txt.gz holds more merges than CLIP uses
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Turns prompts into token ids, enclosed in a start and an end token. Raises for prompts that are too long."""

    bpe: BPETokenizer
    context: int
    """Longest prompt in tokens, including the start and end token."""

    @classmethod
    def from_folder(cls, folder: Path, *, context: int) -> Tokenizer:
        """Read ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``, or CLIP's ``*.txt.gz``; the first that exists.

        Args:
            folder: The folder of the checkpoint.
            context: Longest prompt in tokens. Limits in the files themselves are ignored.

        Raises:
            CheckpointNotFoundError: The folder holds none of these files.
            CheckpointError: The files cannot be read.
        """
        try:
            bpe = _read(folder)
        except Exception as err:  # tokenizers raises bare Exception
            raise CheckpointError(f"the tokenizer in {folder} cannot be read: {err}") from err
        if bpe is None:
            raise CheckpointNotFoundError(
                f"no tokenizer in {folder}: it needs tokenizer.json, or vocab.json and merges.txt, or a BPE *.txt.gz"
            )
        bpe.no_padding()
        bpe.no_truncation()
        return cls(bpe, context)

    def __call__(self, prompt: str) -> list[int]:
        """Return the token ids of a prompt, including the start and end token.

        Raises:
            PromptError: The prompt is blank, is not valid Unicode, or has more tokens than the model accepts.
        """
        if not prompt.strip():
            raise PromptError("the prompt is empty; write what to look for, such as 'cat'")
        try:
            ids = self.bpe.encode(prompt).ids
        except TypeError as err:  # a lone surrogate, which JSON can contain
            raise PromptError(f"the prompt is not valid Unicode: {prompt[:60]!r}") from err
        if len(ids) > self.context:
            raise PromptError(
                f"the prompt has {len(ids) - 2} tokens, but this model accepts at most {self.context - 2}; "
                f"shorten it: {prompt[:60]!r}"
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
    """Derive CLIP's vocabulary from its merges: bytes, bytes that end a word, merged pairs, start and end token."""
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}


def _byte_alphabet() -> list[str]:
    """Return a printable character for each byte, in CLIP's order: printable Latin-1, then characters from U+0100."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = 256 - len(printable)
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(rest)]
