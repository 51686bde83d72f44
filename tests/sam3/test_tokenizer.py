"""The tokenizer gives the same ids as CLIP, whichever files it is read from."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3seg.errors import CheckpointError, CheckpointNotFoundError, PromptError
from s3seg.sam3.tokenizer import Tokenizer
from tests.sam3.small_tokenizer import (
    END,
    START,
    letters,
    merges,
    slow_ids,
    vocabulary,
    write_packed,
    write_vocabulary_and_merges,
)

PAIRS = merges()
PROMPTS = [
    "cat",
    "a cat",
    "Red TRAFFIC light",
    "  the \t dog\n\n then ",
    "the cat's; it'll, they've -- don't!",
    "cats&dogs... (2 of 10)",
    "café cafe\N{COMBINING ACUTE ACCENT} CAFÉ über naïve",
    "猫 и 犬 🐈‍⬛",
    "1234 x2",
    "¡qué!\N{NO-BREAK SPACE}ÿ\x00\x7f",
    "'s 'S ''",
    "<cat> |startoftext|",
]


@pytest.fixture(scope="module")
def oracle():
    return clip_tokenizer()


def clip_tokenizer(**options):
    from transformers import CLIPTokenizer  # importing it takes a second

    return CLIPTokenizer(vocab=vocabulary(PAIRS), merges=PAIRS, **options)


@pytest.fixture(scope="module", params=["tokenizer.json", "vocab.json and merges.txt", "*.txt.gz"])
def tokenizer(request, tmp_path_factory, oracle) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    match request.param:
        case "tokenizer.json":
            oracle.save_pretrained(folder)
            assert (folder / "tokenizer.json").is_file()
        case "vocab.json and merges.txt":
            write_vocabulary_and_merges(folder, PAIRS)
        case _:
            write_packed(folder, PAIRS)
    return Tokenizer.from_folder(folder, context=77)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_the_published_algorithm(tokenizer, prompt):
    assert tokenizer(prompt) == slow_ids(prompt, PAIRS)


@given(prompt=st.text(st.characters(codec="utf-8"), min_size=1, max_size=18).filter(str.strip))
def test_ids_are_those_of_transformers(tokenizer, oracle, prompt):
    assert tokenizer(prompt) == oracle(prompt).input_ids


@pytest.mark.parametrize("prompt", [END, f"cat {END} dog", f"{START}{END}"])
def test_special_tokens_in_a_prompt_have_the_ids_that_transformers_gives_them(tokenizer, oracle, prompt):
    assert tokenizer(prompt) == oracle(prompt).input_ids


def test_words_are_merged_and_not_spelt(tokenizer):
    ids = vocabulary(PAIRS)
    assert tokenizer("Cat café") == [ids[START], ids["cat</w>"], ids["cafÃ©</w>"], ids[END]]


class TestVocabularyOfPackedMerges:
    def test_its_order_is_that_of_clip(self, tmp_path):
        write_packed(tmp_path, PAIRS)
        ids = Tokenizer.from_folder(tmp_path, context=32).bpe.get_vocab()
        assert ids == vocabulary(PAIRS)
        # what CLIP's own vocab.json says
        known = {"!": 0, '"': 1, "A": 32, "a": 64, "~": 93, "¡": 94, "®": 106, "ÿ": 187, "Ā": 188, "Ń": 255}
        assert {token: ids[token] for token in known} == known
        assert (ids["!</w>"], ids["a</w>"], ids["Ń</w>"]) == (256, 320, 511)

    def test_each_byte_has_its_own_letter(self, tmp_path):
        write_packed(tmp_path, [])
        tokenizer = Tokenizer.from_folder(tmp_path, context=32)
        ids = vocabulary([])
        assert sorted(ids.values()) == list(range(514))
        for byte in range(0x80, 0xC0):  # continuation bytes, all of them, behind one leading byte
            spelt = [letters()[0xF0], letters()[0x9F], letters()[0x90], letters()[byte] + "</w>"]
            assert tokenizer(bytes([0xF0, 0x9F, 0x90, byte]).decode())[1:-1] == [ids[part] for part in spelt]

    def test_merges_after_those_that_clip_uses_are_left_out(self, tmp_path):
        known = set(vocabulary(PAIRS))
        more = [pair for pair in product(letters().values(), repeat=2) if "".join(pair) not in known]
        used = [*PAIRS, *more][: 49_408 - 514]
        write_packed(tmp_path, used, after=["z zz</w>", "zz zz</w>"])
        ids = Tokenizer.from_folder(tmp_path, context=32).bpe.get_vocab()
        assert (len(ids), ids[START], ids[END]) == (49_408, 49_406, 49_407)
        assert ids == vocabulary(used)


class TestPrompts:
    def test_a_prompt_may_fill_the_context(self, tokenizer):
        assert len(tokenizer("cat " * 75)) == 77

    def test_the_context_is_that_of_the_model_and_not_that_of_the_file(self, tmp_path, oracle):
        """The repositories of SAM3-LiteText hold CLIP's tokenizer with the context of the text encoder as its limit."""
        limited = clip_tokenizer(model_max_length=5)
        limited(["cat cat cat cat cat"], truncation=True, padding="max_length")  # writes both into tokenizer.json
        limited.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"]["max_length"] == 5

        tokenizer = Tokenizer.from_folder(tmp_path, context=16)

        assert tokenizer("the cat") == oracle("the cat").input_ids
        assert tokenizer("cat " * 14) == oracle("cat " * 14).input_ids
        with pytest.raises(PromptError, match="has 15 tokens, but this model accepts at most 14"):
            tokenizer("cat " * 15)

    def test_a_longer_prompt_is_an_error_that_counts_its_tokens(self, tokenizer):
        with pytest.raises(PromptError, match="has 76 tokens, but this model accepts at most 75") as caught:
            tokenizer("cat " * 76)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize("prompt", ["", " ", "\n\t", "\N{NO-BREAK SPACE}"])
    def test_a_blank_prompt_is_an_error(self, tokenizer, prompt):
        with pytest.raises(PromptError, match="empty"):
            tokenizer(prompt)

    def test_half_a_surrogate_pair_is_an_error(self, tokenizer):
        with pytest.raises(PromptError, match="not valid Unicode"):
            tokenizer("cat \ud83d")

    def test_limits_in_the_file_neither_cut_nor_pad(self, tmp_path, oracle):
        oracle.save_pretrained(tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        content["truncation"] = {
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        content["padding"] = {
            "strategy": {"Fixed": 9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": END,
        }
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        tokenizer = Tokenizer.from_folder(tmp_path, context=32)
        assert tokenizer("cat") == oracle("cat").input_ids
        assert tokenizer("the cat then the dog") == oracle("the cat then the dog").input_ids


class TestFiles:
    def test_a_folder_without_a_tokenizer_is_an_error_that_says_what_was_looked_for(self, tmp_path):
        (tmp_path / "vocab.json").write_text("{}")  # of no use without its merges
        with pytest.raises(CheckpointNotFoundError, match=re.escape(str(tmp_path))) as caught:
            Tokenizer.from_folder(tmp_path, context=32)
        for name in ("tokenizer.json", "vocab.json and merges.txt", "*.txt.gz"):
            assert name in str(caught.value)

    @pytest.mark.parametrize(
        "files",
        [
            {"tokenizer.json": b"{"},
            {"tokenizer.json": b"\xff\xfe"},
            {"tokenizer.json": b'{"version": "1.0"}'},
            {"vocab.json": b"{", "merges.txt": b"a b"},
            {"vocab.json": b"[]", "merges.txt": b"a b"},
            {"vocab.json": b'{"a": 0}', "merges.txt": b""},
            {"vocab.json": b'{"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}', "merges.txt": b"a b"},
            {"vocab.json": b'{"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}', "merges.txt": b"#\na b c"},
            {"bpe.txt.gz": b"not gzip"},
        ],
    )
    def test_a_file_that_cannot_be_read_is_an_error_that_names_the_folder(self, tmp_path: Path, files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=re.escape(f"the tokenizer in {tmp_path} cannot be read")):
            Tokenizer.from_folder(tmp_path, context=32)

    def test_a_truncated_packed_file_is_an_error(self, tmp_path):
        write_packed(tmp_path, PAIRS)
        file = next(tmp_path.glob("*.txt.gz"))
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(CheckpointError, match="cannot be read"):
            Tokenizer.from_folder(tmp_path, context=32)
