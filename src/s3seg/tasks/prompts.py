"""Prompts as people type them: one normal form, for the library, the services and the client."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable

from s3seg.errors import PromptError

# Marks without a shape: zero-width space, word joiner, byte order mark, soft hyphen, invisible operators, the
# placeholder that dictation leaves, and the characters that only change the direction of text.
_INVISIBLE = dict.fromkeys(
    map(
        ord,
        "\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
        "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufeff\ufffc",
    )
)
_TYPOGRAPHIC = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4`"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u115f\u1160\u2800\u3164\uffa0"), " "),  # blanks that Unicode does not call white space
    ord("\u2026"): "...",
    ord("\u3001"): ",",
    ord("\u3002"): ".",
    **{full: chr(full - 0xFEE0) for full in range(0xFF01, 0xFF5F)},  # full-width ASCII of East Asian keyboards
}
_NORMAL = _INVISIBLE | _TYPOGRAPHIC

_JOINERS = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")  # beside ASCII or an end
_QUOTED = re.compile(r"""(["'])((?:(?!\1).)+)\1""")
_SEPARATOR = re.compile(
    r"\s*(?:[;|&]|(?<!\d),|,(?!\d)|(?<=[^\W\d])/(?=[^\W\d])|\s[/.]\s|(?<=\w\w\w)\.\s)\s*|\s+(?:and|or)\s+",
    re.IGNORECASE,
)


def normalize_prompt(text: str) -> str:
    """Return a prompt without what keyboards, clipboards and files add to it.

    White space of any kind (line breaks, no-break and ideographic spaces) becomes single spaces, with none at the
    ends. Zero-width and direction marks go; joiners stay inside emoji and scripts that need them. Smart quotes, long
    dashes and full-width letters become their ASCII forms, and letters with accents one character each (NFC). A pair of
    quotes around the whole prompt goes, and so does a full stop, comma or semicolon at its end. Case is kept.

    Normalizing twice gives the same as once. Text that has nothing to see gives "".
    """
    text = str(text)  # not numpy.str_
    while (shorter := _normalize_once(text)) != text:
        text = shorter
    return text


def _normalize_once(text: str) -> str:
    text = unicodedata.normalize("NFC", text.translate(_NORMAL))
    text = " ".join(_JOINERS.sub("", text).split())
    text = text.rstrip(" .,;") or text[:1]  # all at once: a service reads texts that are made to take long
    quoted = _QUOTED.fullmatch(text)
    return quoted[2].strip() if quoted and quoted[2].strip() else text


def normalize_prompts(prompts: object) -> list[str]:
    """Return one prompt or several as a list of normalized prompts; see `normalize_prompt`.

    Args:
        prompts: A str, or an iterable of them (a list, a tuple, a numpy array ...). Duplicates are kept.

    Raises:
        PromptError: It is neither, or one of them is not text.
    """
    if isinstance(prompts, str):
        return [normalize_prompt(prompts)]
    if isinstance(prompts, bytes | bytearray | memoryview):
        raise PromptError(f"a prompt must be text, got bytes: {bytes(prompts[:40])!r}; decode them: prompt.decode()")
    if isinstance(prompts, dict) or not isinstance(prompts, Iterable):
        raise PromptError(_not_text(prompts, "a prompt must be text, or a list of texts"))
    try:
        items = list(prompts)
    except TypeError as err:  # such as a numpy array without an axis
        raise PromptError(_not_text(prompts, "a prompt must be text, or a list of texts")) from err
    for place, one in enumerate(items):
        if not isinstance(one, str):
            raise PromptError(_not_text(one, f"every prompt must be text, but number {place + 1} of the list is not"))
    return [normalize_prompt(one) for one in items]


def several_things(prompt: str) -> list[str]:
    """Return the things in a prompt that looks like a list ("car, tree"); empty for any other prompt."""
    things = [thing.strip(" .,;'\"[](){}") for thing in _SEPARATOR.split(prompt)]
    things = [thing for thing in things if thing]
    return things if len(things) > 1 else []


def several_things_hint(prompt: str) -> str | None:
    """Return a line for the user if a prompt looks like a list of things ("car, tree"), else None."""
    things = several_things(prompt)
    if not things:
        return None
    listed = ", ".join(f'"{thing}"' for thing in things)
    options = " ".join(f"-p {shlex.quote(thing)}" for thing in things)
    return (
        f"{prompt!r:.80} is searched for as one thing; for several things, give one prompt each: "
        f"[{listed:.200}], or {options:.200}"
    )


def _not_text(value: object, rule: str) -> str:
    return f"{rule}: got {type(value).__name__} {value!r:.60}; for example 'cat' or ['cat', 'dog']"
