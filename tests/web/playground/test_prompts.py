"""prompts.js: the page's prompts have the same normal form as those of the library and the services."""

import random

from s3seg.tasks.prompts import normalize_prompt
from tests.tasks.test_prompts import test_what_keyboards_add_to_a_prompt_is_taken_away as cases_of_the_library

CODE = 'import { normalizePrompt, promptsIn } from "./prompts.js";\n'
(CASES,) = [mark.args[1] for mark in cases_of_the_library.pytestmark if mark.name == "parametrize"]
PIECES = [
    *("a", "B", "é", "e\u0301", "고", "犬", "🐈", "7", "-", "/", "\u0645"),
    *("\u200c", "\u200d", "\u200b", "\ufeff", "\u202e"),
    *(" ", "\n", "\r\n", "\t", "\x1c", "\x1f", "\x85", "\u00a0", "\u3000", "\u2028", "\u3164", "\u180e", "\0", "\x7f"),
    *("'", '"', "\u2019", "\u201c", "\u00ab", ".", ",", ";"),
    *("\u3001", "\u3002", "\u2026", "\uff0c", "\uff41", "\uff5e"),
]


def test_the_page_normalizes_as_the_library_does(run_node):
    typed = [text for text, _ in CASES]
    assert run_node(CODE + "print(input.map(normalizePrompt));", typed) == [normal for _, normal in CASES]


def test_the_page_normalizes_any_text_as_the_library_does(run_node):
    chosen = random.Random(7)
    texts = ["".join(chosen.choices(PIECES, k=chosen.randrange(12))) for _ in range(20_000)]
    said = run_node(CODE + "print(input.map(normalizePrompt));", texts)
    for text, normal in zip(texts, said, strict=True):
        assert normal == normalize_prompt(text), ascii(text)


def test_prompts_lie_between_commas_and_line_breaks(run_node):
    lines = ["cat", " cat ,dog,", "cat,cat\ncat", "red  circle、 고양이，犬\r\n", "", " , \n", "\u201ccat\u201d, cat."]
    said = run_node(CODE + "print(input.map(promptsIn));", lines)
    assert said == [["cat"], ["cat", "dog"], ["cat"], ["red circle", "고양이", "犬"], [], [], ["cat"]]
