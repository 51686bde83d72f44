"""What it costs to import and to ask for help, beside a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import in_turns, show


def main() -> None:
    """Measure whole processes."""

    def process(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    ways = {
        "python -c pass": lambda: process("-c", "pass"),
        "import s3seg": lambda: process("-c", "import s3seg"),
        "s3seg --help": lambda: process("-m", "s3seg", "--help"),
    }
    show("Starting", {"whole process": in_turns(ways, rounds=9)})


if __name__ == "__main__":
    main()
