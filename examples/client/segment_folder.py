"""Send the pictures of a folder to a service, and draw what it finds.

    s3seg serve                                    # in another terminal; paste the two lines that it prints
    python examples/client/segment_folder.py examples/pictures tree out

A picture that fails is reported, and the others are done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import s3seg
from s3seg.errors import InsufficientCreditsError, S3segError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Find something in the pictures of a folder, on a service.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("out", type=Path, help="where the drawn pictures go")
    arguments = parser.parse_args()
    pictures = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []

    def report(source: object, error: S3segError) -> None:  # one bad picture does not stop the others
        if isinstance(error, InsufficientCreditsError):
            raise error
        failed.append(f"{source}: {error}")

    with s3seg.Client() as client:  # S3SEG_URL and S3SEG_TOKEN
        print(f"{len(pictures)} pictures, {client.me().credits} credits")
        for path, found in client.segment_many(pictures, arguments.prompt, on_error=report):
            found.overlay().save(arguments.out / f"{path.stem}.png")
            print(f"{path.name}: {len(found)} found, the best with a score of {max(found.scores, default=0):.2f}")
    for message in failed:
        print(f"failed: {message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except S3segError as error:
        sys.exit(f"{error.code}: {error}")
