"""Exit codes, and the one place that turns an exception into a message on standard error.

Commands raise `S3segError` (or let `OSError` pass); they do not print errors and choose no exit code for them.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from s3seg.commands.escaping import printable
from s3seg.errors import ImageDecodeError, InvalidRequestError, S3segError

ERROR = 1
"""The command failed, or found a problem."""

USAGE = 2
"""The command line cannot be used as given."""

PARTIAL = 3
"""Some pictures failed, the others are done."""

INTERRUPTED = 130
"""Ctrl-C, as shells report it: 128 + SIGINT."""

BROKEN_PIPE = 141
"""Nothing reads the output any more, as shells report it: 128 + SIGPIPE."""


_LEFT_OUT = frozenset({"torch", "numpy", "PIL", "safetensors", "tokenizers", "huggingface_hub", "hotcoco"})


class ErrorHandlingGroup(TyperGroup):
    """The root command: runs the named command, reports what it raises, and exits with the matching code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named.

        Raises:
            typer.Exit: With an exit code of this module, after the message was printed.
        """
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # here, where a closed pipe and a full disk are handled, and not when Python exits
        except KeyboardInterrupt as err:
            raise typer.Exit(INTERRUPTED) from err
        except BrokenPipeError as err:
            # What Python flushes at exit goes to /dev/null instead of raising a second BrokenPipeError.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from err
        except Exception as err:
            if _is_typers_own(err):
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(err)
            print(f"error: {printable(_message(err))}", file=sys.stderr)
            raise typer.Exit(exit_code(err)) from err


def exit_code(err: Exception) -> int:
    """The exit code for an error: `USAGE` for arguments that cannot be used, else `ERROR`."""
    # A picture that cannot be read is an InvalidRequestError too, but the command line was fine.
    wrong_usage = isinstance(err, InvalidRequestError) and not isinstance(err, ImageDecodeError)
    return USAGE if wrong_usage else ERROR


def _is_typers_own(err: Exception) -> bool:
    """Whether typer handles this exception itself: usage errors, and a command that exits with a code."""
    return isinstance(err, typer.Abort) or hasattr(err, "exit_code")


def _message(err: Exception) -> str:
    if isinstance(err, S3segError):
        return str(err)
    if isinstance(err, OSError):
        reason = err.strerror or str(err)
        return f"{err.filename}: {reason}" if err.filename else reason
    if isinstance(err, ModuleNotFoundError) and err.name in _LEFT_OUT:
        return f"this needs the package {err.name}, which s3seg-slim leaves out; run: pip install s3seg"
    return (
        f"unexpected {type(err).__name__}: {err}\n"
        "This is a bug in s3seg. Run the same command as `s3seg --debug ...` for a traceback."
    )
