"""``s3seg segment``: from a command line to segmented pictures and output files.

Read `command` first (the options that users see), then `run` (what happens, in order).
"""
