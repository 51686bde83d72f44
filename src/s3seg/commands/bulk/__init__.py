"""``s3seg bulk``: very many pictures, on this machine or a cluster.

Read `command` first (the options that users see), then `run` and `inspect`.
"""
