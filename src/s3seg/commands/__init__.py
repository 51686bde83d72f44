"""The commands of ``s3seg``, a module or a package each; ``s3seg.cli`` registers them.

Importing a command imports nothing heavy: each imports what it needs when it runs, so that ``--help`` is fast.
A command raises `S3segError`; `s3seg.commands.errors` turns it into a message and an exit code.
"""
