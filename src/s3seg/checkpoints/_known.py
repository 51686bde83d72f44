"""The checkpoints that have short names or that s3seg recommends: what they are, their licences and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDED = "embedded"
FULL = ("sam3.1", "sam3", "unsloth/sam3.1")
"""Names of full SAM 3 and 3.1, in the order in which they become the default once they are on this machine."""
LITE_TEXT = ("litetext", "litetext-s1", "litetext-l")
"""Names of SAM 3 with a light text encoder, likewise."""

NO_ACCOUNT = """Two checkpoints for photographs need no account and no token:
  s3seg models pull litetext          SAM 3 with a light text encoder, 0.5 B parameters
  s3seg models pull unsloth/sam3.1    SAM 3.1 in bfloat16, 1.7 GB, passed on under Meta's SAM License"""
"""What to do for somebody whose download was refused."""


@dataclass(frozen=True, slots=True)
class KnownCheckpoint:
    """A checkpoint with a name of its own.

    Attributes:
        name: The name that users type.
        repo_id: Its repository on the Hugging Face hub; None for the one inside the package.
        gated: Whether the hub asks for an account that has accepted the licence; None if not known.
        summary: A one-line description.
        size: The size of its download, or of the network where that is not known to us.
        licence: The names of its licences.
    """

    name: str
    repo_id: str | None
    gated: bool | None
    summary: str
    size: str
    licence: str


_LITE_TEXT_LICENCE = "Apache-2.0 (its card) and SAM License (what comes from SAM 3)"

KNOWN = {
    known.name: known
    for known in (
        KnownCheckpoint(
            EMBEDDED,
            None,
            False,
            "small, inside the package: for pictograms, shapes and colours",
            "7.8 MB",
            "Apache-2.0",
        ),
        KnownCheckpoint(
            "litetext",
            "vil-uob/sam3-litetext-s0",
            False,
            "SAM 3 with a light text encoder: for photographs, prompts of a few words",
            "0.5 B parameters",
            _LITE_TEXT_LICENCE,
        ),
        KnownCheckpoint(
            "litetext-s1",
            "vil-uob/sam3-litetext-s1",
            False,
            "the same with a larger text encoder",
            "0.6 B parameters",
            _LITE_TEXT_LICENCE,
        ),
        KnownCheckpoint(
            "litetext-l",
            "vil-uob/sam3-litetext-l",
            False,
            "the same with the largest of the light text encoders",
            "0.6 B parameters",
            _LITE_TEXT_LICENCE,
        ),
        KnownCheckpoint(
            "sam3",
            "facebook/sam3",
            True,
            "full SAM 3, 840 M parameters: for photographs and any other picture",
            "3.4 GB",
            "SAM License",
        ),
        KnownCheckpoint(
            "sam3.1",
            "facebook/sam3.1",
            True,
            "SAM 3.1: full SAM 3 with newer weights",
            "3.5 GB",
            "SAM License",
        ),
        KnownCheckpoint(
            "unsloth/sam3.1",
            "unsloth/sam3.1",
            False,
            "SAM 3.1 in bfloat16, redistributed by a third party",
            "1.7 GB",
            "SAM License",
        ),
    )
}

FOR_PHOTOGRAPHS = f"s3seg models pull litetext ({KNOWN['litetext'].size}, no account needed)"
"""The command that gets a checkpoint for photographs and for any words, with its size."""
