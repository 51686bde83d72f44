"""Running `s3seg` as users do: in a process of its own, or, where that is enough, in this one."""

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
    """The command line of `s3seg` for a process of its own."""
    return [sys.executable, "-m", "s3seg", *map(str, arguments)]


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own."""
    return subprocess.run(words(*arguments), capture_output=True, timeout=120, check=False, **options)  # type: ignore
