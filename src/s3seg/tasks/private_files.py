"""Files and folders that only their owner can read, whatever the umask of the process is."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

_log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private_folder(folder: Path) -> None:
    """Create a folder with mode 0700, and missing parents likewise; one that exists is left as it is.

    Raises:
        OSError: If it cannot be created.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_private_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def open_private(path: str | Path, flags: int) -> int:
    """Open a file, and create it with mode 0600 if the flags say so; an ``opener`` for `open`."""
    return os.open(path, flags, 0o600)


def make_private(path: Path) -> None:
    """Take the permissions of everyone but the owner from a file or folder of ours that an earlier version created."""
    try:
        mode = path.stat().st_mode
        if os.name != "nt" and mode & _OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
            _log.warning("%s was readable by others; now only its owner can read it", path)
    except FileNotFoundError:
        return
    except OSError as err:
        _log.warning("%s is readable by others, and its permissions cannot be changed: %s", path, err.strerror)


def warn_if_open_to_others(folder: Path) -> None:
    """Log a warning with the remedy if others can enter a folder, which may hold more than our own files."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return
    if os.name != "nt" and mode & _OTHERS:
        _log.warning("%s is open to other users of this machine; run: chmod go-rwx %s", folder, folder)
