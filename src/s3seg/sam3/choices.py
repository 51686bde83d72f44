"""Choose the device, the precision, and whether to compile: what was asked for, else the environment, else the best."""

from __future__ import annotations

import os

import torch

from s3seg.errors import InvalidRequestError
from s3seg.sam3.cpu_precision import bfloat16_is_native

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ENVIRONMENT = "S3SEG_DTYPE"
"""The environment variable that sets the default precision."""
COMPILE = "S3SEG_COMPILE"
"""The environment variable that says whether the network is compiled by default, with the words of `SWITCHES`."""
SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def choose_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        InvalidRequestError: The device is not available on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        reason = str(err).splitlines()[0]
        raise InvalidRequestError(
            f"the device {name!r} cannot be used (torch {torch.__version__}): {reason}; "
            "use 'auto' for the best available device"
        ) from err
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of this name.

    "auto" is the environment variable ``S3SEG_DTYPE`` if it is set; else bfloat16 on CUDA and on processors that
    multiply bfloat16 in hardware, and float32 elsewhere.

    Raises:
        InvalidRequestError: The name is not "auto" or one of :data:`DTYPES`.
    """
    where = ""
    if name == "auto" and (wanted := os.environ.get(ENVIRONMENT, "").strip()):
        name, where = wanted, f" in {ENVIRONMENT}"
    if name == "auto":
        is_fast = device.type == "cuda" or (device.type == "cpu" and bfloat16_is_native())
        return torch.bfloat16 if is_fast else torch.float32
    if name not in DTYPES:
        raise InvalidRequestError(f"unknown precision {name!r}{where}; choose one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def choose_compile(wanted: bool | None) -> bool | None:
    """Return what was asked for, or what ``S3SEG_COMPILE`` says; None if neither says anything.

    Raises:
        InvalidRequestError: The variable holds another word.
    """
    word = os.environ.get(COMPILE, "").strip().lower()
    if wanted is not None or not word:
        return wanted
    if word not in SWITCHES:
        raise InvalidRequestError(f"unknown value {word!r} in {COMPILE}; use true or false, or leave it unset")
    return SWITCHES[word]
