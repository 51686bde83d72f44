"""Run `s3seg` commands in this process, or in a subprocess."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner, Result

from s3seg.cli import app

Command = Callable[..., Result]
GetPicture = Callable[[str], Path]


def command(*arguments: object, **options: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="s3seg", **options)


def words(*arguments: object) -> list[str]:
    """The command line that runs `s3seg` in a subprocess."""
    return [sys.executable, "-m", "s3seg", *map(str, arguments)]


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a subprocess."""
    return subprocess.run(words(*arguments), capture_output=True, timeout=120, check=False, **options)  # type: ignore
