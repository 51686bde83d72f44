"""Implementations of the ports in `s3seg.tasks.ports`: one file or folder per vendor. They do not import each other."""
