"""What the commands of ``s3seg`` do, one idea a file; ``s3seg.cli`` registers them.

Importing a command imports nothing heavy: what it needs is imported when it runs, so that ``--help`` is quick.
"""
