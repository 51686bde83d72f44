"""A byte-pair tokenizer of our own, in CLIP's format, learned from the words that are asked for."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from .concepts import Vocabulary, regular_plural
from .shapes import COLOURS, PATTERNS, SHAPES
from .unknown_words import TRAINING_WORDS

START, END = "<|startoftext|>", "<|endoftext|>"
VISUAL = "visual"
"""What is said when boxes alone show what is meant."""
TOKENS = 2600
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(vocabulary: Vocabulary, size: int = TOKENS) -> Tokenizer:
    """Learn the tokens from every name, synonym and plural, the shapes, colours, patterns and unknown words."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(vocabulary), trainer)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, end), (START, start), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json` and the configuration that transformers reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "CLIPTokenizerFast", "bos_token": START, "eos_token": END, "pad_token": END,
        "unk_token": END, "model_max_length": context,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _corpus(vocabulary: Vocabulary) -> list[str]:
    words = [VISUAL, "shape", "a", "an", "the", "all", "every", "my", *COLOURS, *PATTERNS]
    words += [form for shape in SHAPES for form in (shape, regular_plural(shape))]
    corpus = words * 8  # whole words rather than pieces
    for concept in vocabulary.concepts:
        corpus += [concept.name, concept.plural] * 4
        for word in (*concept.synonyms, *concept.broader, *concept.more):
            corpus += [word, regular_plural(word)] * 2
    return corpus + list(TRAINING_WORDS)
