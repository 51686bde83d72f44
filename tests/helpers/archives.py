"""Reading tar archives."""

from __future__ import annotations

import tarfile


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, f"{member.name} is not a file"
    return file.read()
