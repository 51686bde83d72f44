"""The words that a small checkpoint was trained on, to warn about prompts with other words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+")


class Vocabulary:
    """A set of phrases. A prompt is known if it is a sequence of these phrases.

    Case, articles and plurals are ignored: with "cat" in the vocabulary, ``vocabulary.unknown("Two cats")`` is
    ``["two"]``.

    Args:
        phrases: The known phrases; repetitions are dropped.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self.phrases = tuple(dict.fromkeys(phrases))
        self._known = {tuple(_words(phrase)) for phrase in self.phrases}
        self._longest = max(map(len, self._known), default=0)

    def __len__(self) -> int:
        return len(self.phrases)

    def __contains__(self, prompt: str) -> bool:
        return not self.unknown(prompt)

    def unknown(self, prompt: str) -> list[str]:
        """Return the words of a prompt that are in no known phrase, in order.

        A prompt without any word (only an article, punctuation or an emoji) is returned as a whole.
        """
        words = [word for word in _words(prompt) if word not in _ARTICLES]
        if not words:  # an article, punctuation, an emoji
            return [prompt.strip()]
        unknown: list[str] = []
        at = 0
        while at < len(words):
            if length := self._phrase_length(words[at : at + self._longest]):
                at += length
            else:
                unknown.append(words[at])
                at += 1
        return unknown

    def _phrase_length(self, words: list[str]) -> int:
        """Return the length of the longest known phrase at the start of ``words``; its last word may be a plural."""
        for length in range(len(words), 0, -1):
            *head, last = words[:length]
            if any((*head, form) in self._known for form in _singulars(last)):
                return length
        return 0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _singulars(word: str) -> Iterator[str]:
    """Yield the word, and the words that it may be the plural of."""
    yield word
    for ending, singular in (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            yield word.removesuffix(ending) + singular
