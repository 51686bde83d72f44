"""Doors into other tools: one thin file each, over a `Segmenter`, a `Client`, or the batcher of a service.

Each file needs only the package of its own tool, imported when the file is. Nothing else in s3seg imports them, except
the commands and the services that offer them.
"""
