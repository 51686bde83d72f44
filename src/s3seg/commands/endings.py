"""How a command ends: one message, an exit code, and no traceback unless it is asked for.

0 done; 1 error; 2 wrong usage; 3 some of the pictures failed; 130 stopped by Ctrl-C; 141 nobody reads the output.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from s3seg.errors import ImageDecodeError, InvalidRequestError, S3segError

ERROR = 1
USAGE = 2
PARTIAL = 3
_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended
_NOBODY_READS = 141  # as a shell reports a program that a closed pipe ended


class GroupWithEndings(TyperGroup):
    """The root of the commands: turns what they raise into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named; see the module for how it ends."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as err:
            raise typer.Exit(_INTERRUPTED) from err
        except BrokenPipeError as err:
            # What Python would still write when it ends goes nowhere, instead of into a second BrokenPipeError.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_NOBODY_READS) from err
        except (S3segError, OSError) as err:
            if ctx.params.get("debug"):
                traceback.print_exc()
            _say(f"Error: {_in_words(err)}")
            wrong_usage = isinstance(err, InvalidRequestError) and not isinstance(err, ImageDecodeError)
            raise typer.Exit(USAGE if wrong_usage else ERROR) from err
        except Exception as err:
            _expect(err)
            if ctx.params.get("debug"):
                traceback.print_exc()
            _say(
                f"Error: this should not have happened: {type(err).__name__}: {err}\n"
                "It is a bug in s3seg; the same command as `s3seg --debug ...` shows where."
            )
            raise typer.Exit(ERROR) from err


def _expect(err: Exception) -> None:
    """Let pass what typer itself raises and handles: wrong usage, and an exit with a code."""
    if isinstance(err, typer.Exit | typer.Abort) or hasattr(err, "exit_code"):
        raise err


def _in_words(err: S3segError | OSError) -> str:
    if isinstance(err, OSError) and err.strerror:
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    return str(err)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
