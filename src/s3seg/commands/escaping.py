"""Text from outside, such as file names and prompts, made safe to print."""

from __future__ import annotations

import unicodedata


def as_utf8(text: str) -> str:
    r"""Escape what UTF-8 cannot store: bytes of file names that are not text become ``\udce9``, as in JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    r"""Return a text that can be written anywhere, and has no control characters but tabs and line breaks.

    What is not text and control characters, with which a file name could command the terminal, are escaped as in
    Python: ``caf\udce9.png``, ``\x1b[2J``.
    """
    return "".join(c if c in "\t\n" or unicodedata.category(c) != "Cc" else f"\\x{ord(c):02x}" for c in as_utf8(text))


def one_line(text: str) -> str:
    """Return a text as `printable` does, without line breaks and tabs."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")
