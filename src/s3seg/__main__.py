"""``python -m s3seg`` is the same as ``s3seg``."""

from s3seg.cli import main

if __name__ == "__main__":
    main()
